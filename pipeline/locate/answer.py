"""The answer to "where was this photo taken?", for Python and for JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.locate.walk import WalkSpan
from stages.files import printable

EARTH_RADIUS_M = 6_371_009.0


@dataclass(frozen=True)
class Candidate:
    """A possible place of a photo.

    Attributes
    ----------
    latitude, longitude : float or None
        Degrees (WGS 84); None if the localiser's UTM zone is unknown.
    utm_east, utm_north : float
        Metres.
    zone : str
        UTM zone, such as "10S"; "" if unknown.
    score : float
        Share of the evidence for this place; without calibration, the probability of its cell within
        the cell's group.
    class_id : int
        Row of the nearest cell in the localiser's classes table.
    images : int
        Training images of that cell.
    """

    latitude: float | None
    longitude: float | None
    utm_east: float
    utm_north: float
    zone: str
    score: float
    class_id: int
    images: int


@dataclass(frozen=True)
class Answer:
    """The place of a photo.

    Attributes
    ----------
    places : tuple of Candidate
        The best place and its runners-up; never empty.
    confidence : float or None
        Probability that the first place is right; None without calibration.
    abstained : bool
        Whether the confidence is too low to rely on the answer.
    exif : tuple of float, or None
        Latitude and longitude in degrees in the photo's EXIF data.
    exif_distance_m : float or None
        Distance from the EXIF position to the first place.
    walk : WalkSpan or None
        The photos that the answer is based on, if it was located as part of a walk.
    """

    photo: Path
    places: tuple[Candidate, ...]
    confidence: float | None
    abstained: bool
    exif: tuple[float, float] | None
    exif_distance_m: float | None
    walk: WalkSpan | None = None

    @property
    def latitude(self) -> float | None:
        """Latitude of the first place in degrees."""
        return self.places[0].latitude

    @property
    def longitude(self) -> float | None:
        """Longitude of the first place in degrees."""
        return self.places[0].longitude

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with the position of the first place at the top level too."""
        first = asdict(self.places[0])
        exif = None
        if self.exif is not None:
            latitude, longitude = self.exif
            exif = {"latitude": latitude, "longitude": longitude, "distance_m": self.exif_distance_m}
        return {
            "photo": printable(self.photo),
            **{name: first[name] for name in ("latitude", "longitude", "utm_east", "utm_north", "zone")},
            "confidence": self.confidence,
            "abstained": self.abstained,
            "exif": exif,
            "places": [asdict(place) for place in self.places],
            **({} if self.walk is None else {"walk": asdict(self.walk)}),
        }


def distance_on_earth_m(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Return the great-circle distance of two (latitude, longitude) in metres, within 0.5 %."""
    (lat1, lon1), (lat2, lon2) = ([math.radians(degrees) for degrees in point] for point in (first, second))
    half = (
        math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_M * math.asin(min(1.0, math.sqrt(half)))
