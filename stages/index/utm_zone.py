"""Positions of any zone, or in degrees -> metres in one UTM zone."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import utm

from stages.errors import InputError
from stages.index.batch import EntryBatch, SkipReason

BEYOND_DEG = 3.0  # how far past the zone's border, or the equator, a position is still forced into the zone
FARTHEST_M = 2e7
_ZONE = re.compile(r"([1-9]|[1-5]\d|60)([C-HJ-NP-X])")


@dataclass(frozen=True)
class Zone:
    """A UTM zone: its number and latitude band."""

    number: int
    band: str

    @classmethod
    def of(cls, text: str) -> Zone:
        """Return the zone that a text such as "10S" names.

        Raises
        ------
        InputError
            If it names none.
        """
        match = _ZONE.fullmatch(text.upper())
        if match is None:
            raise InputError(f"'{text}' is no UTM zone: expected a number and a latitude band, such as 10S")
        return cls(int(match[1]), match[2])

    @property
    def name(self) -> str:
        """Return for instance "10S"."""
        return f"{self.number}{self.band}"

    @property
    def northern(self) -> bool:
        """Return whether northings count from the equator."""
        return self.band >= "N"

    def metres(self, latlon: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return (n, 2) east and north of (n, 2) latitudes and longitudes, NaN if too far away."""
        centre_deg = utm.zone_number_to_central_longitude(self.number)
        latitude, longitude = latlon.T
        away_deg = np.abs((longitude - centre_deg + 180) % 360 - 180)
        beyond_deg = -latitude if self.northern else latitude
        near = (away_deg <= 3 + BEYOND_DEG) & (beyond_deg <= BEYOND_DEG)
        positions = np.full(latlon.shape, np.nan)
        if near.any():
            east, north, _, _ = utm.from_latlon(
                latitude[near], longitude[near], force_zone_number=self.number, force_zone_letter=self.band
            )
            positions[near] = np.stack([east, north], axis=1)
        return positions


def zone_of_first(found: EntryBatch) -> Zone | None:
    """Return the zone of the first usable row, or None if no row is usable or that one tells none."""
    usable = np.flatnonzero(found.faults == SkipReason.NONE)
    if not len(usable):
        return None
    row = usable[0]
    if found.latlon[row]:
        latitude, longitude = found.positions[row].tolist()
        return Zone(
            utm.latlon_to_zone_number(latitude, longitude), str(utm.latitude_to_zone_letter(latitude))
        )
    if not found.zone_numbers[row]:
        return None
    return Zone(int(found.zone_numbers[row]), chr(found.bands[row]))


def check_range(found: EntryBatch) -> None:
    """Give a fault to every row whose position is not a number or lies nowhere on Earth."""
    first, second = found.positions.T
    finite = np.isfinite(first) & np.isfinite(second)
    with np.errstate(invalid="ignore"):
        on_earth = (first >= -80) & (first <= 84) & (second >= -180) & (second <= 180)
        in_reach = (np.abs(first) <= FARTHEST_M) & (np.abs(second) <= FARTHEST_M)
    good = np.where(found.latlon, on_earth, in_reach)
    unblamed = found.faults == SkipReason.NONE
    found.faults[unblamed & ~finite] = SkipReason.NOT_A_NUMBER
    found.faults[unblamed & finite & ~good] = SkipReason.OUT_OF_RANGE


def place(found: EntryBatch, zone: Zone | None) -> None:
    """Turn all positions into metres of one zone; rows too far from it get a fault.

    Rows that state no zone are taken to lie in it; without a zone all positions stay as they are.
    """
    if zone is None:
        return
    usable = found.faults == SkipReason.NONE
    same_half = (found.bands >= ord("N")) == zone.northern
    stray = usable & ~found.latlon & (found.zone_numbers > 0)
    stray &= (found.zone_numbers != zone.number) | ~same_half
    for code in np.unique(found.zone_numbers[stray].astype(np.int64) * 256 + found.bands[stray]):
        rows = np.flatnonzero(stray & (found.zone_numbers == code // 256) & (found.bands == code % 256))
        east, north = found.positions[rows].T
        northern = bool(code % 256 >= ord("N"))
        degrees = utm.to_latlon(east, north, int(code // 256), northern=northern, strict=False)
        found.positions[rows] = np.stack(degrees, axis=1)
    convert = np.flatnonzero(stray | (usable & found.latlon))
    if not len(convert):
        return
    found.positions[convert] = zone.metres(found.positions[convert])
    found.latlon[convert] = False
    lost = convert[np.isnan(found.positions[convert, 0])]
    found.faults[lost] = SkipReason.TOO_FAR
