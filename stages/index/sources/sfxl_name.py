"""One SF-XL file name, parsed field by field: the reference for the parsing of many.

A name is
`@utm_east@utm_north@zone@band@lat@lon@pano@tile@heading@pitch@roll@height@timestamp@note@.jpg`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from stages.index.skipped import SkipReason

SEPARATORS = 15
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

    Parameters
    ----------
    name
        A file name or a path that ends in one.
    """
    fields = name.rpartition("/")[2].split("@")
    if len(fields) < 4 or not (fields[1] or fields[2]):
        return SkipReason.NO_POSITION
    if not (_NUMBER.fullmatch(fields[1]) and _NUMBER.fullmatch(fields[2])):
        return SkipReason.NOT_A_NUMBER
    zone, band = (fields[3], fields[4].upper()) if len(fields) > 5 else ("", "")
    if zone or band:
        if not (zone.isascii() and zone.isdigit() and 1 <= int(zone) <= 60):
            return SkipReason.BAD_ZONE
        if len(band) != 1 or band not in _BANDS:
            return SkipReason.BAD_ZONE
    is_complete = len(fields) > SEPARATORS
    heading = float(fields[9]) if is_complete and _NUMBER.fullmatch(fields[9]) else np.nan
    timestamp = fields[13] if is_complete else ""
    return Fields(float(fields[1]), float(fields[2]), int(zone or 0), band, heading, timestamp)
