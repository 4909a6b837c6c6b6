"""Answers to "where was this photo taken?", as values for scripts and for JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.files import printable

EARTH_RADIUS_M = 6_371_009.0


@dataclass(frozen=True)
class Candidate:
    """One place where a photo may have been taken.

    Attributes
    ----------
    latitude, longitude : float or None
        Degrees (WGS 84); None if the localiser's UTM zone is unknown.
    utm_east, utm_north : float
        Metres.
    zone : str
        UTM zone, such as "10S"; "" if unknown.
    score : float
        Share of the evidence that speaks for this place; without calibration, the probability
        of its cell within the cell's group.
    class_id : int
        Row of the localiser's classes table of the nearest cell.
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
    """Where a photo was taken, best place first.

    Attributes
    ----------
    photo : Path
        The file, as it was named.
    places : tuple of Candidate
        The answer and its runners-up; never empty.
    confidence : float or None
        Probability that the first place is right; None if the localiser is not calibrated.
    abstained : bool
        Whether the confidence is too low for the answer to be relied on.
    exif : tuple of float, or None
        Latitude and longitude in degrees that the photo's EXIF data states.
    exif_distance_m : float or None
        From there to the first place, in metres.
    """

    photo: Path
    places: tuple[Candidate, ...]
    confidence: float | None
    abstained: bool
    exif: tuple[float, float] | None
    exif_distance_m: float | None

    @property
    def latitude(self) -> float | None:
        """Latitude of the first place in degrees."""
        return self.places[0].latitude

    @property
    def longitude(self) -> float | None:
        """Longitude of the first place in degrees."""
        return self.places[0].longitude

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the first place's fields stand at the top as well."""
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
        }


def distance_on_earth_m(here: tuple[float, float], there: tuple[float, float]) -> float:
    """Return the great-circle distance of two (latitude, longitude) in metres, good to 0.5 %."""
    (lat1, lon1), (lat2, lon2) = ([math.radians(degrees) for degrees in point] for point in (here, there))
    half = (
        math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_M * math.asin(min(1.0, math.sqrt(half)))
