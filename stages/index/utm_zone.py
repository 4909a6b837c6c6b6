"""The UTM zone of a manifest: which one it is, and conversion of all positions to it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import utm

from stages.errors import InputError
from stages.index.batch import EntryBatch
from stages.index.skipped import SkipReason

# A city may lie on a zone's border or on the equator, so positions this far beyond are still converted.
BEYOND_DEG = 3.0
MAX_METRES = 2e7
_ZONE = re.compile(r"([1-9]|[1-5]\d|60)([C-HJ-NP-X])")


@dataclass(frozen=True)
class Zone:
    """A UTM zone: its number and latitude band."""

    number: int
    band: str

    @classmethod
    def of(cls, text: str) -> Zone:
        """Return the zone of a text such as "10S".

        Raises
        ------
        InputError
            If the text is not a zone.
        """
        match = _ZONE.fullmatch(text.upper())
        if match is None:
            raise InputError(f"'{text}' is not a UTM zone: expected a number and a band, such as 10S")
        return cls(int(match[1]), match[2])

    @property
    def name(self) -> str:
        """The zone as text, for instance "10S"."""
        return f"{self.number}{self.band}"

    @property
    def northern(self) -> bool:
        """Whether northings count from the equator."""
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


def zone_of_first(batch: EntryBatch) -> Zone | None:
    """Return the zone of the first usable entry; None if there is no such entry or it states no zone."""
    usable = np.flatnonzero(batch.usable)
    if not len(usable):
        return None
    row = usable[0]
    if batch.latlon[row]:
        latitude, longitude = batch.positions[row].tolist()
        number = utm.latlon_to_zone_number(latitude, longitude)
        return Zone(number, str(utm.latitude_to_zone_letter(latitude)))
    if not batch.zone_numbers[row]:
        return None
    return Zone(int(batch.zone_numbers[row]), chr(batch.bands[row]))


def check_range(batch: EntryBatch) -> None:
    """Skip entries whose position is not a number or not on Earth."""
    first, second = batch.positions.T
    finite = np.isfinite(first) & np.isfinite(second)
    with np.errstate(invalid="ignore"):
        degrees_fit = (first >= -80) & (first <= 84) & (second >= -180) & (second <= 180)
        metres_fit = (np.abs(first) <= MAX_METRES) & (np.abs(second) <= MAX_METRES)
    batch.skip(~finite, SkipReason.NOT_A_NUMBER)
    batch.skip(~np.where(batch.latlon, degrees_fit, metres_fit), SkipReason.OUT_OF_RANGE)


def convert_to_zone(batch: EntryBatch, zone: Zone | None) -> None:
    """Convert all positions to metres of one zone in place; skip entries too far from it.

    Entries that state no zone are taken to lie in this one. Without a zone all positions stay unchanged.
    """
    if zone is None:
        return
    usable = batch.usable
    same_hemisphere = (batch.bands >= ord("N")) == zone.northern
    foreign = usable & ~batch.latlon & (batch.zone_numbers > 0)
    foreign &= (batch.zone_numbers != zone.number) | ~same_hemisphere
    # Metres of another zone go through degrees.
    for code in np.unique(batch.zone_numbers[foreign].astype(np.int64) * 256 + batch.bands[foreign]):
        number, band = divmod(int(code), 256)
        rows = np.flatnonzero(foreign & (batch.zone_numbers == number) & (batch.bands == band))
        east, north = batch.positions[rows].T
        degrees = utm.to_latlon(east, north, number, northern=band >= ord("N"), strict=False)
        batch.positions[rows] = np.stack(degrees, axis=1)
    convert = np.flatnonzero(foreign | (usable & batch.latlon))
    if not len(convert):
        return
    batch.positions[convert] = zone.metres(batch.positions[convert])
    batch.latlon[convert] = False
    too_far = convert[np.isnan(batch.positions[convert, 0])]
    batch.skip_reasons[too_far] = SkipReason.TOO_FAR
