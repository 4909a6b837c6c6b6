"""Reasons to skip an entry, and the tally of a scan: indexed images and skipped entries by reason."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

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
    COMMA = 20

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
    SkipReason.COMMA: "a comma that may separate decimals or thousands: write 543256.0",
}


@dataclass
class Tally:
    """Counts of indexed images and of skipped entries, with a few example keys per reason.

    `low` and `high` are the corners of the box around all indexed positions, in metres.
    """

    rows: int = 0
    counts: dict[SkipReason, int] = field(default_factory=dict)
    examples: dict[SkipReason, list[str]] = field(default_factory=dict)
    low: tuple[float, float] = (np.inf, np.inf)
    high: tuple[float, float] = (-np.inf, -np.inf)

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
            self.add(SkipReason(code), len(rows), [keys[int(row)].as_py() for row in rows[:MAX_EXAMPLES]])

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
