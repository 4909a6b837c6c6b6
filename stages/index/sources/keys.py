"""Keys of a list in one form: relative to its folder, with slashes, and spelled as the files are."""

from __future__ import annotations

import itertools
import os
import posixpath
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stages.index.batch import EntryBatch
from stages.index.skipped import SkipReason

LOOK_UPS = 1000
"""Keys that may be spelled differently are looked up on the disk until there are this many; then the most
frequent spelling is taken."""

_UNUSUAL = r"\\|//|(^|/)\.\.?(/|$)|^[/\s]|\s$|[^\x00-\x7F]"
_FORMS = tuple(itertools.product((False, True), (False, True), ("", "NFC", "NFD")))


class KeyForms:
    """Settles the keys of one source, whose paths start at `root`."""

    def __init__(self, root: Path) -> None:
        self._roots = tuple(dict.fromkeys((str(root.absolute()), str(root.resolve()))))
        self._look_ups = 0
        self._hits: Counter[tuple[bool, bool, str]] = Counter()

    def settle(self, batch: EntryBatch) -> None:
        """Give unusual keys their normal form, and skip those that lead out of the root."""
        rows = _unusual_rows(batch.keys)
        if len(rows):  # often all of them, because `find .` begins each path with a dot
            batch.keys = pc.replace_substring_regex(batch.keys, r"^(?:\./+)+", "")
            rows = _unusual_rows(batch.keys)
        if not len(rows):
            return
        settled = [self._settled(key) for key in batch.keys.take(pa.array(rows)).to_pylist()]
        chosen = np.zeros(len(batch), np.bool_)
        chosen[rows] = True
        batch.keys = pc.replace_with_mask(batch.keys, pa.array(chosen), pa.array(settled, pa.string()))
        outside = np.zeros(len(batch), np.bool_)
        outside[rows] = [leads_out(key) for key in settled]
        batch.skip(outside, SkipReason.OUTSIDE)

    def _settled(self, key: str) -> str:
        plain = self._relative(key)
        forms: dict[str, tuple[bool, bool, str]] = {}
        for form in _FORMS:
            forms.setdefault(self._relative(_spelled(key, form)), form)
        if len(forms) == 1:
            return plain
        if self._look_ups == LOOK_UPS:
            return self._relative(_spelled(key, self._hits.most_common(1)[0][0])) if self._hits else plain
        self._look_ups += 1
        for spelling, form in forms.items():
            if os.path.lexists(f"{self._roots[0]}/{spelling}"):
                self._hits[form] += 1
                return spelling
        return plain

    def _relative(self, key: str) -> str:
        normal = posixpath.normpath(key) if key else key
        for root in self._roots:
            if normal.startswith(f"{root}/"):
                return normal[len(root) + 1 :]
        return normal


def leads_out(key: str) -> bool:
    """Return whether a normal key names nothing below the root."""
    return key in ("", ".", "..") or key.startswith(("/", "../"))


def _spelled(key: str, form: tuple[bool, bool, str]) -> str:
    slashes, trimmed, unicode_form = form
    key = key.replace("\\", "/") if slashes else key
    key = key.strip() if trimmed else key
    return unicodedata.normalize(unicode_form, key) if unicode_form else key  # type: ignore[arg-type]


def _unusual_rows(keys: pa.StringArray) -> npt.NDArray[np.int64]:
    """Return the rows of keys that are not plain relative paths in ASCII."""
    _, offset_buffer, text_buffer = keys.buffers()
    if text_buffer is None or not len(keys):
        return np.zeros(0, np.int64)
    offsets = np.frombuffer(offset_buffer, np.int32)[keys.offset : keys.offset + len(keys) + 1]
    text = np.frombuffer(text_buffer, np.uint8)
    filled = offsets[1:] > offsets[:-1]
    ends = np.concatenate([text[offsets[:-1][filled]], text[offsets[1:][filled] - 1]])
    content = text[offsets[0] : offsets[-1]]
    behind_slash = content[np.flatnonzero(content[:-1] == ord("/")) + 1]
    suspects = (ends <= ord(" ")) | (ends == ord("/")) | (ends == ord("."))
    # Almost all lists have plain keys, and these tests read them faster than a regular expression.
    if (
        not suspects.any()
        and not ((behind_slash == ord("/")) | (behind_slash == ord("."))).any()
        and b"\\" not in (joined := content.tobytes())
        and joined.isascii()
    ):
        return np.zeros(0, np.int64)
    unusual = np.asarray(pc.match_substring_regex(keys, _UNUSUAL), np.bool_)
    return np.flatnonzero(unusual & filled)
