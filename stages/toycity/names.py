"""File names in the manner of SF-XL: everything known of an image, between '@' signs."""

from __future__ import annotations

import base64
import hashlib

import utm

ZONE = 10
BAND = "S"


def sfxl_name(east_m: float, north_m: float, *, pano: str, heading_deg: float, timestamp: str) -> str:
    """The SF-XL file name of an image in UTM zone 10 S.

    Parameters
    ----------
    east_m, north_m : float
        UTM position, kept to the centimetre.
    pano : str
        Id of the panorama that the image is a crop of.
    heading_deg : float
        Clockwise from north, kept to the degree.
    timestamp : str
        YYYYMM.
    """
    east_m, north_m = round(east_m, 2), round(north_m, 2)
    latitude, longitude = utm.to_latlon(east_m, north_m, ZONE, BAND)
    heading = round(heading_deg) % 360
    return (
        f"@{east_m:010.2f}@{north_m:010.2f}@{ZONE}@{BAND}@{latitude:09.5f}@{longitude:010.5f}"
        f"@{pano}@@{heading}@@@@{timestamp}@@.jpg"
    )


def pano_id(*parts: int) -> str:
    """22 characters, as panorama ids have, that depend on `parts` alone."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
