"""The answer to "where was this photo taken?", for Python and for JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import utm

from pipeline.locate.alike import AlikePhoto, alike_photos
from pipeline.locate.photos import Capture
from pipeline.locate.walk import WalkSpan
from stages.files import printable
from stages.index.utm_zone import Zone

if TYPE_CHECKING:
    from stages.models.localiser.localiser import Localiser

Floats = npt.NDArray[np.floating[Any]]

EARTH_RADIUS_M = 6_371_009.0
SPREAD_SHARE = 0.2
"""With less of the evidence, the first place is one among many."""
RIVAL_SHARE = 0.5
"""A place with this part of the first one's share is its rival."""


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
    alike : tuple of AlikePhoto
        The database photos near this place that look most like the photo; empty where the localiser does not
        know its photos.
    """

    latitude: float | None
    longitude: float | None
    utm_east: float
    utm_north: float
    zone: str
    score: float
    class_id: int
    images: int
    alike: tuple[AlikePhoto, ...] = ()


@dataclass(frozen=True)
class Answer:
    """The place of a photo, or of several photos of one spot.

    Attributes
    ----------
    photo : Path
        The photo; the first of several.
    places : tuple of Candidate
        The best place and its runners-up; never empty.
    confidence : float or None
        Probability that the first place is right; None without calibration.
    abstained : bool
        Whether to withhold the answer: no photo of this city looks like this one.
    exif : tuple of float, or None
        Latitude and longitude in degrees in the photo's EXIF data.
    exif_distance_m : float or None
        Distance from the EXIF position to the first place.
    walk : WalkSpan or None
        The photos that the answer is based on, if it was located as part of a walk.
    together : tuple of Path
        All photos of the spot, if several were located together.
    """

    photo: Path
    places: tuple[Candidate, ...]
    confidence: float | None
    abstained: bool
    exif: tuple[float, float] | None
    exif_distance_m: float | None
    walk: WalkSpan | None = None
    together: tuple[Path, ...] = ()

    @property
    def latitude(self) -> float | None:
        """Latitude of the first place in degrees."""
        return self.places[0].latitude

    @property
    def longitude(self) -> float | None:
        """Longitude of the first place in degrees."""
        return self.places[0].longitude

    @property
    def reason(self) -> str:
        """Why the answer is sure or not, in words."""
        if self.abstained:
            best = max((photo.likeness for place in self.places for photo in place.alike), default=None)
            return "nothing alike" + (
                "" if best is None else f": the likeness to photos of it is at most {best:.2f}"
            )
        shares = [place.score for place in self.places]
        if self.confidence is None:  # probabilities within groups, not shares
            return "not calibrated: the scores of the places say little about how sure the answer is"
        if shares[0] < SPREAD_SHARE:
            return f"the evidence is spread over many places: the best one has {shares[0]:.0%} of it"
        rivals = [share for share in shares if share >= RIVAL_SHARE * shares[0]]
        if len(rivals) == 1:
            return f"one place stands out: it has {shares[0]:.0%} of the evidence"
        parts = ", ".join(f"{share:.0%}" for share in rivals)
        return f"{len(rivals)} places share the evidence: they have {parts} of it"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with the position of the first place at the top level too."""
        first = asdict(self.places[0])
        exif = None
        if self.exif is not None:
            latitude, longitude = self.exif
            exif = {"latitude": latitude, "longitude": longitude, "distance_m": self.exif_distance_m}
        return {
            "photo": printable(self.photo),
            **({"photos": [printable(photo) for photo in self.together]} if self.together else {}),
            **{name: first[name] for name in ("latitude", "longitude", "utm_east", "utm_north", "zone")},
            "confidence": self.confidence,
            "abstained": self.abstained,
            "reason": self.reason,
            "exif": exif,
            "places": [
                asdict(place) | {"alike": [asdict(photo) for photo in place.alike]} for place in self.places
            ],
            **({} if self.walk is None else {"walk": asdict(self.walk)}),
        }


def answer_of(
    capture: Capture, places: tuple[Candidate, ...], confidence: float, *, abstained: bool
) -> Answer:
    """Return an answer with the photo's EXIF position and its distance from the first place.

    A confidence of NaN is unknown.
    """
    first, exif, distance_m = places[0], capture.position, None
    if exif is not None and first.latitude is not None and first.longitude is not None:
        distance_m = round(distance_on_earth_m(exif, (first.latitude, first.longitude)), 1)
    known = None if math.isnan(confidence) else round(confidence, 4)
    return Answer(capture.path, places, known, abstained, exif, distance_m)


def candidates(
    trained: Localiser,
    positions: Floats,
    scores: Floats,
    class_ids: npt.NDArray[np.int64],
    features: Floats,
) -> tuple[Candidate, ...]:
    """Return the places of one photo with `features` (F,) or (V, F) at positions (top, 2) in metres.

    Class id -1 is no place. The first place stays first; the others, chosen to cover what it leaves, follow
    in the order of their scores.
    """
    first, *others = (
        replace(
            _candidate(trained, position.tolist(), float(score), int(class_id)),
            alike=alike_photos(trained, features, position, int(class_id)),
        )
        for position, score, class_id in zip(positions, scores, class_ids, strict=True)
        if class_id >= 0
    )
    return first, *sorted(others, key=lambda place: -place.score)


def _candidate(trained: Localiser, position: list[float], score: float, class_id: int) -> Candidate:
    east, north = (round(value, 2) for value in position)
    classes = trained.classes
    latitude = longitude = None
    if classes.zone:
        zone = Zone.of(classes.zone)
        degrees = utm.to_latlon(east, north, zone.number, northern=zone.northern, strict=False)
        latitude, longitude = (round(float(value), 7) for value in degrees)
    images = int(trained.places.images[class_id])
    return Candidate(latitude, longitude, east, north, classes.zone, round(score, 5), class_id, images)


def distance_on_earth_m(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Return the great-circle distance of two (latitude, longitude) in metres, within 0.5 %."""
    (lat1, lon1), (lat2, lon2) = ([math.radians(degrees) for degrees in point] for point in (first, second))
    half = (
        math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_M * math.asin(min(1.0, math.sqrt(half)))
