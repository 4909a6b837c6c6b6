"""Batches of entries: images with the positions that a source states for them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.index.file_changes import FileStatus
from stages.index.skipped import SkipReason

UNKNOWN_HEADINGS = (-1.0, -999.0, -9999.0)
"""What programs write for a heading that they do not know."""


@dataclass
class EntryBatch:
    """A batch of n entries in the source's order.

    Attributes
    ----------
    keys
        n paths relative to the source's root.
    positions
        (n, 2) UTM east and north in metres, or latitude and longitude in degrees.
    latlon
        (n,) bool, True where the position is latitude and longitude.
    zone_numbers, bands
        (n,) uint8, UTM zone number and ASCII code of the latitude band of
        positions in metres; 0 where the source does not state them.
    heading
        (n,) float32 degrees, NaN where unknown.
    timestamp
        n strings, "" where unknown.
    skip_reasons
        (n,) uint8, a `SkipReason` each.
    extra_columns
        The source's own columns, as strings.
    unknown_headings
        Number of stated headings that `settle_headings` made unknown.
    files
        Lengths and dates of the images' files; None where files are not looked at.
    """

    keys: pa.StringArray
    positions: npt.NDArray[np.float64]
    latlon: npt.NDArray[np.bool_]
    zone_numbers: npt.NDArray[np.uint8]
    bands: npt.NDArray[np.uint8]
    heading: npt.NDArray[np.float32]
    timestamp: pa.StringArray
    skip_reasons: npt.NDArray[np.uint8]
    extra_columns: dict[str, pa.StringArray] = field(default_factory=dict)
    unknown_headings: int = 0
    files: FileStatus | None = None

    @classmethod
    def blank(cls, keys: pa.StringArray) -> EntryBatch:
        """Return a batch with keys and nothing else."""
        rows = len(keys)
        return cls(
            keys,
            positions=np.full((rows, 2), np.nan),
            latlon=np.zeros(rows, np.bool_),
            zone_numbers=np.zeros(rows, np.uint8),
            bands=np.zeros(rows, np.uint8),
            heading=np.full(rows, np.nan, np.float32),
            timestamp=pa.repeat("", rows),
            skip_reasons=np.zeros(rows, np.uint8),
        )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Which entries have no skip reason, (n,)."""
        return np.asarray(self.skip_reasons == SkipReason.NONE)

    def skip(self, rows: npt.NDArray[np.bool_], reason: SkipReason) -> None:
        """Give a reason to those of the rows that have none yet, so that the first reason counts."""
        self.skip_reasons[rows & self.usable] = reason

    def settle_headings(self) -> None:
        """Make headings unknown that are none: placeholders and what is beyond a full turn."""
        with np.errstate(invalid="ignore"):
            rows = np.flatnonzero((self.heading < 0) | (self.heading > 360))
        stated = self.heading[rows]
        is_none = np.isin(stated, UNKNOWN_HEADINGS) | (np.abs(stated) > 360)
        self.unknown_headings = int((is_none & self.usable[rows]).sum())
        self.heading[rows] = np.where(is_none, np.nan, stated + 360)
