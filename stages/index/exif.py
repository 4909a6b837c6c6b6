"""Position, time and heading of a photo from its EXIF data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from stages.images.formats import HEIC_MISSING, open_picture
from stages.images.read import UnreadableImage, as_unreadable
from stages.index.degrees import LATITUDE, LONGITUDE, exif_degrees, hemisphere, number
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
        exif = exif_of(path)
    except UnreadableImage as fault:
        return SkipReason.HEIC if fault.reason == HEIC_MISSING else SkipReason.UNREADABLE
    return photo_of(exif)


def photo_of(exif: Image.Exif) -> Photo | SkipReason:
    """Return where, when and in which direction a photo with this EXIF data was taken, or what is wrong."""
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    if not {ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLongitude} & set(gps):
        return SkipReason.NO_GPS
    latitude = _degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, LATITUDE)
    longitude = _degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, LONGITUDE)
    for axis in (latitude, longitude):
        if isinstance(axis, SkipReason):
            return axis
    if not latitude and not longitude:
        return SkipReason.NO_FIX
    heading = number(gps.get(ExifTags.GPS.GPSImgDirection))
    return Photo(float(latitude), float(longitude), heading, _taken(exif))


def time_and_camera(exif: Image.Exif) -> tuple[str, str]:
    """Return when a photo was taken, as ISO 8601, and the model of the camera; "" where unknown."""
    return _taken(exif), str(exif.get(ExifTags.Base.Model, "")).strip("\0 ")


def exif_of(path: Path, source: bytes | Image.Image | None = None) -> Image.Exif:
    """Return the EXIF data of a file, or of its content or the opened image, which `path` names in errors.

    Raises
    ------
    UnreadableImage
        If the file is not an image, or its EXIF data is damaged.
    """
    with as_unreadable(path):
        if isinstance(source, Image.Image):
            return _with_parts(source.getexif())
        with open_picture(path if source is None else source, decode_at_least=1) as image:
            return _with_parts(image.getexif())
    raise AssertionError  # the block returns or raises


def _with_parts(exif: Image.Exif) -> Image.Exif:
    """Read the parts that Pillow reads when they are first asked for, while the file is open."""
    exif.get_ifd(ExifTags.IFD.GPSInfo)
    exif.get_ifd(ExifTags.IFD.Exif)
    return exif


def _taken(exif: Image.Exif) -> str:
    return _timestamp(str(exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal, "")))


def _degrees(gps: dict[int, Any], tag: int, reference_tag: int, letters: str) -> float | SkipReason:
    """Return signed degrees, or why the value and its reference state none."""
    angle = exif_degrees(gps.get(tag), letters)
    if angle is None:
        return SkipReason.BAD_EXIF
    degrees, sign_in_text = angle
    signs = {sign_in_text, hemisphere(gps.get(reference_tag), letters)} - {0}
    if not degrees:
        return 0.0
    if len(signs) > 1 or (degrees < 0 and 1 in signs):
        return SkipReason.NO_HEMISPHERE  # the value contradicts its reference
    if degrees < 0:
        return degrees  # the sign is there already, so a reference to the south or west adds none
    return degrees * signs.pop() if signs else SkipReason.NO_HEMISPHERE


def _timestamp(text: str) -> str:
    """Return a camera's "2025:12:22 09:47:11" as ISO 8601; any other text unchanged."""
    date, _, time = text.strip("\0 ").partition(" ")
    return f"{date.replace(':', '-')}T{time}" if date.count(":") == 2 and time else text.strip("\0 ")
