"""The photos of the database that a located photo looks most like: the evidence beside an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.models.localiser.localiser import Localiser

Features = npt.NDArray[np.floating[Any]]
Floats = npt.NDArray[np.floating[Any]]

PHOTOS_OF_PLACE = 2
"""Photos shown of each place."""


@dataclass(frozen=True)
class AlikePhoto:
    """A database photo: its key, likeness (a cosine, at most 1) and UTM position in metres."""

    photo: str
    likeness: float
    utm_east: float
    utm_north: float


def alike_photos(
    trained: Localiser, features: Features, position: Floats, place_id: int
) -> tuple[AlikePhoto, ...]:
    """Return the photos near an answer that are most like a photo with these features (F,) or (V, F).

    They come from the exemplars of the answer's place and of all places within the radius.
    """
    exemplars = trained.exemplars
    if exemplars is None or exemplars.photos is None:
        return ()
    radius_m = float((trained.meta.get("fusion") or {}).get("radius_m", 0.0))
    near = np.linalg.norm(trained.places.centres - position, axis=1) <= radius_m
    near[place_id] = True
    views = np.atleast_2d(features)[:, : trained.pooled_length]
    best = exemplars.most_alike(views, np.flatnonzero(near), PHOTOS_OF_PLACE)
    photos = exemplars.photos
    return tuple(
        AlikePhoto(
            photos.keys[photo].as_py(),
            round(likeness, 3),
            *(round(value, 2) for value in photos.positions[photo].tolist()),
        )
        for photo, likeness in best
    )
