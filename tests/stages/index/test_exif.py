"""Positions in EXIF data: forms of coordinates and references, and photos without a usable position."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from stages.index.exif import Photo, read_exif
from stages.index.skipped import SkipReason

LATITUDE_TAG, LONGITUDE_TAG = ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLongitude
LATITUDE_REF, LONGITUDE_REF = ExifTags.GPS.GPSLatitudeRef, ExifTags.GPS.GPSLongitudeRef
RIO = {LATITUDE_REF: "S", LATITUDE_TAG: (22, 54, 24.48), LONGITUDE_REF: "W", LONGITUDE_TAG: (43, 10, 22.44)}


def entry(value):
    """Return the TIFF type, count and bytes of a value; Pillow itself writes standard types only."""
    if isinstance(value, str):
        return 2, len(value) + 1, value.encode() + b"\0"
    if isinstance(value, bytes):
        return 7, len(value), value
    if isinstance(value, float):
        return 12, 1, struct.pack("<d", value)
    parts = [
        part if isinstance(part, IFDRational) else IFDRational(round(part * 1e6), 10**6) for part in value
    ]
    return 10, len(parts), b"".join(struct.pack("<2i", part.numerator, part.denominator) for part in parts)


def exif_bytes(gps):
    """Return EXIF data with one GPS directory."""
    start = 26
    ends, entries = start + 6 + 12 * len(gps), b""
    payload = b""
    for tag, value in sorted(gps.items()):
        kind, count, data = entry(value)
        if len(data) > 4:
            payload, data = payload + data, struct.pack("<I", ends + len(payload))
        entries += struct.pack("<HHI", tag, kind, count) + data.ljust(4, b"\0")
    first = struct.pack("<HHHIII", 1, ExifTags.IFD.GPSInfo, 4, 1, start, 0)
    header = b"II*\0" + struct.pack("<I", 8) + first
    return b"Exif\0\0" + header + struct.pack("<H", len(gps)) + entries + bytes(4) + payload


def read(folder, **changes):
    """Return what `read_exif` reads of a photo in Rio whose tags are changed; None removes one."""
    names = {"lat": LATITUDE_TAG, "lat_ref": LATITUDE_REF, "lon": LONGITUDE_TAG, "lon_ref": LONGITUDE_REF}
    gps = {**RIO, **{names[name]: value for name, value in changes.items()}}
    exif = exif_bytes({tag: value for tag, value in gps.items() if value is not None})
    Image.new("RGB", (8, 8)).save(folder / "photo.jpg", exif=exif)
    return read_exif(folder / "photo.jpg")


def is_in_rio(photo):
    return isinstance(photo, Photo) and np.allclose((photo.latitude, photo.longitude), (-22.9068, -43.1729))


@pytest.mark.parametrize(
    "references", [("S", "W"), ("s", "w"), ("South", "WEST"), (b"S\0", b"W"), (" S", "W\0")]
)
def test_references_in_every_spelling(tmp_path, references):
    assert is_in_rio(read(tmp_path, lat_ref=references[0], lon_ref=references[1]))


@pytest.mark.parametrize(
    ("lat", "lon"),
    [
        ((22.9068,), (43.1729,)),
        (22.9068, 43.1729),
        ((22, 54.408), (43, 10.374)),
        ((22, 54.408, IFDRational(0, 0)), (43, 10.374, IFDRational(0, 0))),
        ("22.9068", "43,1729"),
        ("22 54 24.48 S", "43 10 22.44 W"),
    ],
)
def test_coordinates_in_short_forms(tmp_path, lat, lon):
    assert is_in_rio(read(tmp_path, lat=lat, lon=lon))


@pytest.mark.parametrize("reference", [None, "", "\0", "X", "E"])
def test_an_unsigned_value_without_hemisphere_is_skipped(tmp_path, reference):
    assert read(tmp_path, lat_ref=reference) == SkipReason.NO_HEMISPHERE
    assert is_in_rio(read(tmp_path, lat_ref=reference, lat="-22.9068"))


def test_a_sign_is_never_applied_twice(tmp_path):
    assert is_in_rio(read(tmp_path, lat="-22.9068", lon=(-43.0, 10, 22.44)))


def test_a_sign_against_the_reference_is_skipped(tmp_path):
    assert read(tmp_path, lat="-22.9068", lat_ref="N") == SkipReason.NO_HEMISPHERE
    assert read(tmp_path, lon="43.1729 E", lon_ref="W") == SkipReason.NO_HEMISPHERE


@pytest.mark.parametrize("lat", [(22, IFDRational(0, 0), 24), (22, 75, 0), (22.5, 30, 0), "here", None])
def test_unusable_components_have_their_own_reason(tmp_path, lat):
    assert read(tmp_path, lat=lat) == SkipReason.BAD_EXIF


def test_no_gps_and_no_fix(tmp_path):
    assert read(tmp_path, lat=None, lon=None) == SkipReason.NO_GPS
    assert read(tmp_path, lat=(0, 0, 0), lon=(0, 0, 0)) == SkipReason.NO_FIX
    assert read(tmp_path, lat=(0, 0, 0), lon=(0, 0, 0), lat_ref=None, lon_ref="") == SkipReason.NO_FIX


def test_a_place_on_the_equator_needs_no_reference(tmp_path):
    assert read(tmp_path, lat=(0, 0, 0), lat_ref=None).latitude == 0
