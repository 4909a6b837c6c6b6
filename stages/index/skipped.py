"""Reasons to skip an entry, and the tally of a scan: indexed images and skipped entries by reason."""

from __future__ import annotations

import csv
import enum
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.files import replacing
from stages.images.formats import HEIC_MISSING

MAX_EXAMPLES = 3


class SkipReason(enum.IntEnum):
    """Why an entry is not indexed; NONE if it is."""

    NONE = 0
    NO_KEY = 1
    NOT_TEXT = 2
    NO_POSITION = 3
    NOT_A_NUMBER = 4
    OUT_OF_RANGE = 5
    BAD_ZONE = 6
    TOO_FAR = 7
    NO_GPS = 8
    UNREADABLE = 9
    RAGGED = 10
    DUPLICATE = 11
    NO_FIX = 12
    NO_HEMISPHERE = 13
    BAD_EXIF = 14
    HEIC = 15
    COMMA = 20
    OTHER_KIND = 21
    NOT_A_FILE = 22
    HIDDEN = 23
    CLOSED_FOLDER = 24
    OUTSIDE = 25

    @property
    def words(self) -> str:
        """The reason as people read it."""
        return _WORDS[self]


_WORDS = {
    SkipReason.NONE: "nothing wrong",
    SkipReason.NO_KEY: "no path",
    SkipReason.NOT_TEXT: "path is not UTF-8",
    SkipReason.NO_POSITION: "no position",
    SkipReason.NOT_A_NUMBER: "position is not a number",
    SkipReason.OUT_OF_RANGE: "position out of range",
    SkipReason.BAD_ZONE: "not a UTM zone: expected number and letter, such as 10S",
    SkipReason.TOO_FAR: "too far from the UTM zone of the others",
    SkipReason.NO_GPS: "no position in the name, none in the EXIF data",
    SkipReason.UNREADABLE: "no position in the name, not a readable image",
    SkipReason.RAGGED: "more or fewer fields than the header",
    SkipReason.DUPLICATE: "key seen before",
    SkipReason.NO_FIX: "position is 0, 0: no GPS fix",
    SkipReason.NO_HEMISPHERE: "GPS position without its hemisphere",
    SkipReason.BAD_EXIF: "EXIF position cannot be read",
    SkipReason.HEIC: HEIC_MISSING,
    SkipReason.COMMA: "a comma that may separate decimals or thousands: write 543256.0",
    SkipReason.OTHER_KIND: "not an image by its ending",
    SkipReason.NOT_A_FILE: "not a file: a FIFO, socket, device, broken or circular link",
    SkipReason.HIDDEN: "hidden: its name begins with a dot",
    SkipReason.CLOSED_FOLDER: "a folder that cannot be opened",
    SkipReason.OUTSIDE: "path leads out of the folder of the list: move the list above its images",
}


@dataclass
class Tally:
    """Counts of indexed images and of skipped entries, with a few example keys per reason.

    `low` and `high` are the corners of the box around all indexed positions, in metres. `endings` counts
    the files that are not images by their ending, and `unknown_headings` the headings that are none.
    """

    rows: int = 0
    counts: dict[SkipReason, int] = field(default_factory=dict)
    examples: dict[SkipReason, list[str]] = field(default_factory=dict)
    low: tuple[float, float] = (np.inf, np.inf)
    high: tuple[float, float] = (-np.inf, -np.inf)
    endings: Counter[str] = field(default_factory=Counter)
    unknown_headings: int = 0
    _list: list[tuple[pa.StringArray, SkipReason]] = field(default_factory=list)

    @property
    def unusable(self) -> set[SkipReason]:
        """Reasons of skipped entries, without those of files that may lie beside images."""
        return set(self.counts) - {SkipReason.OTHER_KIND, SkipReason.HIDDEN}

    def count_indexed(self, positions: npt.NDArray[np.float64]) -> None:
        """Count images by their (n, 2) positions."""
        self.rows += len(positions)
        if len(positions):
            low = np.minimum(self.low, positions.min(axis=0))
            high = np.maximum(self.high, positions.max(axis=0))
            self.low, self.high = (float(low[0]), float(low[1])), (float(high[0]), float(high[1]))

    def count_skipped(self, keys: pa.StringArray, reasons: npt.NDArray[np.uint8]) -> None:
        """Count those of n entries that have a reason."""
        for code in np.unique(reasons[reasons > 0]):
            rows = np.flatnonzero(reasons == code)
            reason, skipped = SkipReason(code), keys.take(pa.array(rows))
            self.add(reason, len(rows), skipped[:MAX_EXAMPLES].to_pylist())
            self.list_skipped(skipped, reason)
            if reason == SkipReason.OTHER_KIND:
                self.endings.update(
                    PurePosixPath(key).suffix.lower() or "no ending" for key in skipped.to_pylist()
                )

    def list_skipped(self, keys: pa.StringArray, reason: SkipReason) -> None:
        """Add entries to the list of all that are skipped, without counting them."""
        self._list.append((keys, reason))

    def write_list(self, path: Path) -> None:
        """Write the keys and reasons of all skipped entries as a CSV, atomically."""
        with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("key", "reason"))
            for keys, reason in self._list:
                writer.writerows((key, reason.words) for key in keys.to_pylist())

    def add(self, reason: SkipReason, count: int, keys: list[str]) -> None:
        """Count skipped entries; `keys` are the first few."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        examples = self.examples.setdefault(reason, [])
        examples += keys[: MAX_EXAMPLES - len(examples)]

    def words(self) -> str:
        """Return for instance "2 no position (a.jpg, b.jpg); 1 path is not UTF-8 (c.jpg)"."""
        parts = [
            f"{count:,} {reason.words} ({', '.join(self.examples[reason])})"
            for reason, count in self.counts.items()
        ]
        return "; ".join(parts) or "none"


def skipped_path(manifest: Path) -> Path:
    """Return the file that lists the entries skipped while a manifest was made."""
    return manifest.with_name(f"{manifest.stem}-skipped.csv")


def read_skipped(path: Path) -> list[tuple[str, str]]:
    """Return key and reason of every entry in such a file; none if it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [(row[0], row[1]) for row in list(csv.reader(file))[1:] if len(row) == 2]
