"""UTM zones: their names, the zones of positions, and conversion of all positions to one zone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import utm

from stages.errors import InputError
from stages.index.batch import EntryBatch
from stages.index.skipped import SkipReason

# A city may lie on a zone's border or on the equator, so positions this far beyond are still converted.
BEYOND_DEG = 3.0
MAX_METRES = 2e7
BAND_S_M = 3.44e6, 4.53e6
"""Northings of band S (32 to 40 degrees), and 100 km more, because a city may reach into the next band."""

_ZONE = re.compile(r"0?([1-9]|[1-5]\d|60) ?([C-HJ-NP-X])")
_SOUTHERN_BORDERS_M = [utm.from_latlon(latitude, 3.0, 31)[1] for latitude in range(-72, 0, 8)]


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
        match = _ZONE.fullmatch(text.strip().upper())
        if match is None:
            raise InputError(f"'{text}' is not a UTM zone: expected number and letter, such as 10S")
        return cls(int(match[1]), match[2])

    @classmethod
    def of_file(cls, text: str, path: Path) -> Zone:
        """Return the zone that a file of positions states; InputError if it states none."""
        if not text:
            raise InputError(
                f"{path} has no UTM zone, so its positions have no degrees: add a column zone "
                "to the source and run `pipeline index`"
            )
        return cls.of(text)

    @property
    def name(self) -> str:
        """The zone as text, for instance "10S"."""
        return f"{self.number}{self.band}"

    def same_grid(self, other: Zone) -> bool:
        """Whether metres of both zones count from the same origin."""
        return self.number == other.number and self.northern == other.northern

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

    def degrees(self, positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return latitudes and longitudes of east and north in metres, both (..., 2); NaN stays NaN."""
        east, north = positions[..., 0], positions[..., 1]
        latlon = utm.to_latlon(east, north, self.number, northern=self.northern, strict=False)
        return np.stack(latlon, axis=-1)


def zones_of(latlon: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return the zone numbers and bands of (n, 2) latitudes and longitudes, (n,) each.

    `utm` knows only one position at a time. Zones are wider at Norway's coast and around Svalbard.
    """
    latitude, longitude = latlon.T
    longitude = (longitude + 180) % 360 - 180
    numbers = ((longitude + 180) // 6 + 1).astype(np.uint8)
    numbers[(latitude >= 56) & (latitude < 64) & (longitude >= 3) & (longitude < 12)] = 32
    svalbard = (latitude >= 72) & (longitude >= 0) & (longitude < 42)
    numbers[svalbard] = np.array([31, 33, 35, 37])[np.searchsorted([9, 21, 33], longitude[svalbard], "right")]
    letters = np.frombuffer(b"CDEFGHJKLMNPQRSTUVWXX", np.uint8)
    return numbers, letters[np.clip((latitude + 80) // 8, 0, len(letters) - 1).astype(np.int64)]


def southern_bands(north: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Return the bands of (n,) northings of the southern hemisphere, (n,)."""
    return np.frombuffer(b"CDEFGHJKLM", np.uint8)[np.searchsorted(_SOUTHERN_BORDERS_M, north)]


def settle_letter_s(batch: EntryBatch) -> None:
    """Replace the letter S by a band of the south where the northing cannot lie in band S.

    People write S for the south as well as for the band of San Francisco.
    """
    letter_s = (batch.bands == ord("S")) & ~batch.latlon
    north = batch.positions[:, 1]
    with np.errstate(invalid="ignore"):
        letter_s &= (north < BAND_S_M[0]) | (north > BAND_S_M[1])
    if letter_s.any():
        batch.bands[letter_s] = southern_bands(north[letter_s])


def check_range(batch: EntryBatch) -> None:
    """Skip entries whose position is not a number, not on Earth, or 0, 0, which means no GPS fix."""
    first, second = batch.positions.T
    finite = np.isfinite(first) & np.isfinite(second)
    with np.errstate(invalid="ignore"):
        degrees_fit = (first >= -80) & (first <= 84) & (second >= -180) & (second <= 180)
        metres_fit = (np.abs(first) <= MAX_METRES) & (np.abs(second) <= MAX_METRES)
    batch.skip(~finite, SkipReason.NOT_A_NUMBER)
    batch.skip(~np.where(batch.latlon, degrees_fit, metres_fit), SkipReason.OUT_OF_RANGE)
    # Metres without a zone may count from any point, such as the corner of a map.
    batch.skip(_at_zero(batch) & (batch.latlon | (batch.zone_numbers > 0)), SkipReason.NO_FIX)


def _at_zero(batch: EntryBatch) -> npt.NDArray[np.bool_]:
    return np.asarray((batch.positions[:, 0] == 0) & (batch.positions[:, 1] == 0))


def convert_to_zone(batch: EntryBatch, zone: Zone | None) -> npt.NDArray[np.float64]:
    """Convert all positions to metres of one zone in place; skip entries too far from it.

    Entries that state no zone are taken to lie in this one. Without a zone all positions stay unchanged.

    Returns
    -------
    ndarray
        (m, 2) latitudes and longitudes of the entries that are skipped as too far.
    """
    if zone is None:
        return np.zeros((0, 2))
    batch.skip(_at_zero(batch), SkipReason.NO_FIX)
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
        return np.zeros((0, 2))
    degrees = batch.positions[convert]
    metres = zone.metres(degrees)
    too_far = np.isnan(metres[:, 0])
    batch.positions[convert] = metres
    batch.latlon[convert] = False
    batch.skip_reasons[convert[too_far]] = SkipReason.TOO_FAR
    return degrees[too_far]
