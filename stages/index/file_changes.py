"""What became of the image files since a source was last indexed: their folder, lengths and dates.

The record lies beside the manifest, and DVC does not track it: DVC deletes the outputs of a stage before it
runs the stage, and a newer date alone must not make any stage run again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.errors import InputError
from stages.files import read_table, write_table
from stages.index.hashing import FILE_BYTES, key_hashes

_MODIFIED = "modified_ns"
_REPLACE = "run `pipeline extract --replace`"
_Columns = dict[str, npt.NDArray[Any]]


class FileStatus(NamedTuple):
    """Length in bytes and modification time in ns since 1970 of n files, each (n,) int64; 0: unknown."""

    file_bytes: npt.NDArray[np.int64]
    modified: npt.NDArray[np.int64]


@dataclass(frozen=True)
class FileChanges:
    """How the files of images that were indexed before differ from then.

    `images` counts these images, `same`, `other` and `newer` those of the same length, of another length, and
    of the same length with a newer date. `images` is None if files were not looked at, then or now.
    `earlier_root` is None if its record is damaged.
    """

    earlier_root: Path | None
    root: Path
    images: int | None = None
    same: int = 0
    other: int = 0
    newer: int = 0

    def facts(self) -> list[tuple[str, object]]:
        """Return the lines to show a person; none if nothing changed."""
        if self.earlier_root is None:
            return [("earlier files", "their record is damaged: changed files are not counted this time")]
        if os.path.realpath(self.earlier_root) != os.path.realpath(self.root):
            text = f"changed from {self.earlier_root} to {self.root}"
            return [("root folder", f"{text}: {self._at_other_root()}")]
        lines: list[tuple[str, object]] = []
        if self.other:
            lines.append(
                ("replaced", f"{_have(self.other)} another length: extracted again by `pipeline extract`")
            )
        if self.newer:
            text = f"{_have(self.newer)} a newer date and the same size"
            lines.append(("newer date", f"{text}: {_REPLACE} if their content changed"))
        return lines

    def _at_other_root(self) -> str:
        """Return what happens to the images of another root folder, and what to do."""
        if self.images is None:
            text = "file lengths are unknown, so features are reused for equal paths"
            return f"{text}; {_REPLACE} if the images are others"
        if not self.images:
            return "no path was indexed before"
        parts = [f"{self.same:,} of {_have(self.images)} the same length there"]
        if self.same:
            parts.append("features are reused for these")
        if self.other:
            parts.append(f"{_have(self.other)} another length: extracted again (wrong folder? edit data)")
        if unknown := self.images - self.same - self.other:
            parts.append(
                f"{_have(unknown)} an unknown length: features are reused; {_REPLACE} if they differ"
            )
        return "; ".join(parts)


def _have(count: int) -> str:
    return "1 image has" if count == 1 else f"{count:,} images have"


class FileRecord:
    """Root folder, and key hash, length and date of every image, where they are known."""

    def __init__(self) -> None:
        self.root = ""
        self._keys: list[npt.NDArray[np.uint64]] = []
        self._status: list[FileStatus] = []

    def add(self, keys: pa.StringArray, status: FileStatus) -> None:
        """Add images with the status of their files."""
        self._keys.append(key_hashes(keys))
        self._status.append(status)

    def replace(self, manifest: Path) -> FileChanges | None:
        """Write the record beside the manifest; return the changes since the last one, None without one."""
        path, root = record_path(manifest), _root(manifest, self.root)
        columns = self._columns()
        changes = None
        if path.exists():
            try:
                before, note = read_table(path, made_by="pipeline index")
                changes = _compare(before, columns, _root(manifest, note["root"]), root)
            except (InputError, KeyError):
                changes = FileChanges(None, root)
        write_table(path, pa.table(columns), {"root": self.root})
        return changes

    def _columns(self) -> _Columns:
        lengths, dates = zip(*self._status, strict=True) if self._status else ((), ())
        none = np.zeros(0, np.int64)
        return {
            "key": np.concatenate([none.astype(np.uint64), *self._keys]),
            FILE_BYTES: np.concatenate([none, *lengths]),
            _MODIFIED: np.concatenate([none, *dates]),
        }


def record_path(manifest: Path) -> Path:
    """Return the file that keeps lengths and dates of a manifest's files."""
    return manifest.with_name(f"{manifest.stem}-files.parquet")


def _root(manifest: Path, text: str) -> Path:
    return Path(os.path.normpath(manifest.parent / text))


def _compare(before: _Columns, now: _Columns, earlier_root: Path, root: Path) -> FileChanges:
    """Return the changes of the images that are in both records."""
    if not len(before["key"]) or not len(now["key"]):
        return FileChanges(earlier_root, root)
    _, old, new = np.intersect1d(before["key"], now["key"], assume_unique=True, return_indices=True)
    length, length_now = before[FILE_BYTES][old], now[FILE_BYTES][new]
    date, date_now = before[_MODIFIED][old], now[_MODIFIED][new]
    known = (length > 0) & (length_now > 0)
    same = known & (length == length_now)
    newer = same & (date > 0) & (date_now > date)
    counts = int(same.sum()), int((known & ~same).sum()), int(newer.sum())
    return FileChanges(earlier_root, root, len(old), *counts)
