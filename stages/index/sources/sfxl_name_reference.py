"""One SF-XL file name, parsed field by field: the reference for the parsing of many.

A name is
`@utm_east@utm_north@zone@band@lat@lon@pano@tile@heading@pitch@roll@height@timestamp@note@.jpg`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.index.skipped import SkipReason
from stages.index.utm_zone import southern_bands

SEPARATORS = 15
EAST_M, NORTH_M = (100_000.0, 1_000_000.0), (0.0, 10_000_000.0)  # the ranges of UTM
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{0,9})?", re.ASCII)
_BANDS = "CDEFGHJKLMNPQRSTUVWX"


@dataclass(frozen=True)
class Fields:
    """What one name states: UTM position, zone (0 and "" if absent), heading, timestamp."""

    east: float
    north: float
    zone_number: int
    band: str
    heading: float
    timestamp: str


def parse_name(name: str) -> Fields | SkipReason:
    """Return what one name states, or the reason to skip it.

    A name states a position only if it begins with "@" and two numbers that can be UTM metres. A faulty
    name with all fields has a reason of its own; any other name with "@" just states no position.

    Parameters
    ----------
    name
        A file name or a path that ends in one.
    """
    fields = read_fields(name)
    if isinstance(fields, Fields) and not can_be_utm(np.array([[fields.east, fields.north]]))[0]:
        return SkipReason.OUT_OF_RANGE if name.count("@") >= SEPARATORS else SkipReason.NO_POSITION
    return fields


def can_be_utm(positions: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which of (n, 2) numbers can be UTM east and north in metres, (n,)."""
    east, north = positions.T
    fits: npt.NDArray[np.bool_] = (east >= EAST_M[0]) & (east <= EAST_M[1])
    fits &= north >= NORTH_M[0]
    fits &= north <= NORTH_M[1]
    return fits


def read_fields(name: str) -> Fields | SkipReason:
    """Return what one name states, without the check that the numbers can be UTM metres."""
    fields = name.replace("\\", "/").rpartition("/")[2].split("@")
    if len(fields) < 4 or fields[0] or not (fields[1] or fields[2]):
        return SkipReason.NO_POSITION
    is_complete = len(fields) > SEPARATORS
    if not (_NUMBER.fullmatch(fields[1]) and _NUMBER.fullmatch(fields[2])):
        return SkipReason.NOT_A_NUMBER if is_complete else SkipReason.NO_POSITION
    zone, band = (fields[3], fields[4].upper()) if len(fields) > 5 else ("", "")
    is_zone = zone.isascii() and zone.isdigit() and 1 <= int(zone) <= 60 and len(band) == 1 and band in _BANDS
    if (zone or band) and not is_zone:
        return SkipReason.BAD_ZONE if is_complete else SkipReason.NO_POSITION
    north = float(fields[2])
    if band == "S" and fields[5].startswith("-"):
        band = chr(southern_bands(np.array([north]))[0])
    heading = float(fields[9]) if is_complete and _NUMBER.fullmatch(fields[9]) else np.nan
    timestamp = fields[13] if is_complete else ""
    return Fields(float(fields[1]), north, int(zone or 0), band, heading, timestamp)
