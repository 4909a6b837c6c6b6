"""What a source yields: batches of images with the positions that it claims for them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa


class SkipReason(enum.IntEnum):
    """Why an entry is not indexed; 0 if nothing is wrong with it."""

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

    @property
    def words(self) -> str:
        """Return the fault in a person's words."""
        return _WORDS[self]


_WORDS = {
    SkipReason.NONE: "nothing wrong",
    SkipReason.NO_KEY: "no path",
    SkipReason.NOT_TEXT: "path is not UTF-8",
    SkipReason.NO_POSITION: "no position",
    SkipReason.NOT_A_NUMBER: "position is not a number",
    SkipReason.OUT_OF_RANGE: "position out of range",
    SkipReason.BAD_ZONE: "not a UTM zone",
    SkipReason.TOO_FAR: "too far from the UTM zone of the others",
    SkipReason.NO_GPS: "no position in the name, none in the EXIF data",
    SkipReason.UNREADABLE: "no position in the name, not a readable image",
    SkipReason.RAGGED: "more or fewer fields than the header",
    SkipReason.DUPLICATE: "key seen before",
}


@dataclass
class EntryBatch:
    """A batch of n images in the source's order.

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
        positions in metres; 0 where the source does not say.
    heading
        (n,) float32 degrees, NaN where unknown.
    timestamp
        n strings, "" where unknown.
    faults
        (n,) uint8, a `SkipReason` each.
    further
        The source's own columns, as strings.
    """

    keys: pa.StringArray
    positions: npt.NDArray[np.float64]
    latlon: npt.NDArray[np.bool_]
    zone_numbers: npt.NDArray[np.uint8]
    bands: npt.NDArray[np.uint8]
    heading: npt.NDArray[np.float32]
    timestamp: pa.StringArray
    faults: npt.NDArray[np.uint8]
    further: dict[str, pa.StringArray] = field(default_factory=dict)

    @classmethod
    def blank(cls, keys: pa.StringArray) -> EntryBatch:
        """Return a batch of which nothing but the keys is known."""
        rows = len(keys)
        return cls(
            keys,
            positions=np.full((rows, 2), np.nan),
            latlon=np.zeros(rows, np.bool_),
            zone_numbers=np.zeros(rows, np.uint8),
            bands=np.zeros(rows, np.uint8),
            heading=np.full(rows, np.nan, np.float32),
            timestamp=pa.repeat("", rows),
            faults=np.zeros(rows, np.uint8),
        )

    def __len__(self) -> int:
        return len(self.keys)
