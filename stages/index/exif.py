"""Position, time and heading of a photo from its EXIF data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags

from stages.images.formats import open_picture
from stages.images.read import UnreadableImage, as_unreadable
from stages.index.skipped import SkipReason


@dataclass(frozen=True)
class Photo:
    """EXIF data of one photo: degrees, heading in degrees (NaN if unknown), timestamp ("" if unknown)."""

    latitude: float
    longitude: float
    heading: float
    timestamp: str


def read_exif(path: Path) -> Photo | SkipReason:
    """Return where, when and in which direction a photo was taken, or the reason to skip it."""
    try:
        with as_unreadable(path), open_picture(path, decode_at_least=1) as image:
            exif = image.getexif()
            gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
            taken = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal, "")
    except UnreadableImage:
        return SkipReason.UNREADABLE
    latitude = _degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "S")
    longitude = _degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "W")
    if latitude is None or longitude is None:
        return SkipReason.NO_GPS
    heading = _number(gps.get(ExifTags.GPS.GPSImgDirection))
    return Photo(latitude, longitude, heading, _timestamp(str(taken)))


def _degrees(gps: dict[int, Any], tag: int, reference_tag: int, negative: str) -> float | None:
    """Return signed degrees from degrees, minutes and seconds; None if they are absent or malformed."""
    parts = gps.get(tag)
    if not isinstance(parts, tuple) or len(parts) != 3:
        return None
    degrees, minutes, seconds = (_number(part) for part in parts)
    total = degrees + minutes / 60 + seconds / 3600
    if not math.isfinite(total):
        return None
    return -total if str(gps.get(reference_tag, "")).strip("\0 ").upper() == negative else total


def _number(value: Any) -> float:
    """Return a rational as a float, NaN if it is absent or divides by zero."""
    try:
        return float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return np.nan


def _timestamp(text: str) -> str:
    """Return a camera's "2025:12:22 09:47:11" as ISO 8601; any other text unchanged."""
    date, _, time = text.strip("\0 ").partition(" ")
    return f"{date.replace(':', '-')}T{time}" if date.count(":") == 2 and time else text.strip("\0 ")
