"""The page of `pipeline locate --map`: the located photos as a list beside a map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.locate.answer import Answer
from pipeline.locate.formats import Outcome, write
from pipeline.locate.output import facts, remark, where
from pipeline.locate.walk import by_walk
from stages.eval.report.base_map import BaseMap
from stages.eval.report.gallery import Album
from stages.eval.report.map_data import MapItem, map_data
from stages.eval.report.page import render
from stages.files import printable
from stages.images.read import UnreadableImage
from stages.index.utm_zone import Zone
from stages.models.localiser.exemplar_photos import ExemplarPhotos
from stages.models.localiser.localiser import Localiser

PHOTOS_BYTES = 12_000_000
"""Limit of all photos in the page together."""
_THUMBNAIL_PX = ((100, 240), (600, 140), (2000, 100))
"""Up to so many photos, thumbnails have this longer side; of more, the page shows small ones."""
_SMALL_PX = 72
_OWN_SHARE = 0.7
"""Part of the limit for the located photos; the database photos get the rest."""


class Gallery:
    """The thumbnails of the page, each of them once."""

    def __init__(self, count: int, known: ExemplarPhotos | None, album: Callable[[int, int], Album]) -> None:
        self.photos: list[str] = []
        self._database = known
        px = next((px for most, px in _THUMBNAIL_PX if count <= most), _SMALL_PX)
        self._own = album(px, int(_OWN_SHARE * PHOTOS_BYTES))
        self._alike = Album(px, PHOTOS_BYTES - int(_OWN_SHARE * PHOTOS_BYTES))
        self._number: dict[Path, int | None] = {}

    @property
    def left_out(self) -> int:
        """Located photos that exceed the limit."""
        return self._own.left_out

    def own(self, photo: Path) -> int | None:
        """Return the number of a located photo's thumbnail; None if there is no room or it is unreadable."""
        return self._add(photo, self._own)

    def alike(self, key: str) -> int | None:
        """Return the number of a database photo's thumbnail; None if its file is not there any more."""
        path = None if self._database is None else self._database.path_of(key)
        return None if path is None else self._add(path, self._alike)

    def _add(self, photo: Path, album: Album) -> int | None:
        if photo not in self._number:
            thumbnail = album.thumbnail(photo)
            self._number[photo] = None if thumbnail is None else len(self.photos)
            self.photos += [] if thumbnail is None else [thumbnail]
        return self._number[photo]


def write_map(path: Path, trained: Localiser, outcomes: Sequence[Outcome], base: BaseMap) -> None:
    """Write the page with the list and the map of all answers; see `map_page`."""
    write(path, map_page(trained, outcomes, base))


def map_page(
    trained: Localiser,
    outcomes: Sequence[Outcome],
    base: BaseMap,
    album: Callable[[int, int], Album] = Album,
) -> str:
    """Return a self-contained page with the list and the map of all answers.

    `album` makes the album, of a size in pixels and bytes, that reads the located photos.

    Raises
    ------
    InputError
        If the base map cannot be read.
    """
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    known = None if trained.exemplars is None else trained.exemplars.photos
    gallery = Gallery(len(answers), known, album)
    own = [gallery.own(answer.photo) for answer in answers]
    items = [_item(answer, photo, gallery) for answer, photo in zip(answers, own, strict=True)]
    # Streets far from all answers are left out; an answer always lies in the localiser's area.
    ground = base.data(
        trained.classes.zone, trained.places.centres, None if known is None else known.positions
    )
    return render(
        "located.html",
        data=map_data(
            trained.places,
            items,
            radius_m=float((trained.meta.get("fusion") or {}).get("radius_m", 0.0)),
            focus="items",
            paths=_paths(answers),
            photos=gallery.photos,
            base=ground,
        ),
        items=items,
        unreadable=[outcome for outcome in outcomes if isinstance(outcome, UnreadableImage)],
        left_out=gallery.left_out,
        photos_mb=PHOTOS_BYTES / 1e6,
    )


def _paths(answers: Sequence[Answer]) -> list[list[tuple[float, float]]]:
    """Return the first places along each walk, in order of time."""
    walked = [answer for answer in answers if answer.walk is not None and answer.walk.session]
    return [
        [(answer.places[0].utm_east, answer.places[0].utm_north) for answer in walk]
        for _, walk in by_walk(walked)
    ]


def _item(answer: Answer, photo: int | None, gallery: Gallery) -> MapItem:
    first, *others = answer.places
    truth = None
    if answer.exif is not None and first.zone:
        position = Zone.of(first.zone).metres(np.array([answer.exif]))[0]
        if np.isfinite(position).all():
            truth = (round(float(position[0]), 2), round(float(position[1]), 2))
    return MapItem(
        label=printable(answer.photo),
        truth=truth,
        answer=(first.utm_east, first.utm_north),
        others=tuple((place.utm_east, place.utm_north) for place in others),
        error_m=answer.exif_distance_m,
        score=first.score,
        confidence=answer.confidence,
        abstained=answer.abstained,
        right=None,
        photo=photo,
        details=_details(answer, gallery),
        session="" if answer.walk is None else printable(answer.walk.session),
    )


def _details(answer: Answer, gallery: Gallery) -> dict[str, Any]:
    """Return the reason, the facts and the places with the photos that look most like this one."""
    first = answer.places[0]
    shown_with_places = (
        "position",
        "because",
        "looks like",
        *(f"{n}." for n in range(2, 1 + len(answer.places))),
    )
    return {
        "reason": answer.reason,
        "facts": [(name, str(value)) for name, value in facts(answer) if name not in shown_with_places],
        "places": [
            {
                "position": where(place),
                "remark": remark(place, first),
                "geo": None if place.latitude is None else f"{place.latitude},{place.longitude}",
                "at": (place.utm_east, place.utm_north),
                "alike": [
                    {
                        "key": printable(photo.photo),
                        "likeness": f"{photo.likeness:.2f}",
                        "photo": gallery.alike(photo.photo),
                        "at": (photo.utm_east, photo.utm_north),
                    }
                    for photo in place.alike
                ],
            }
            for place in answer.places
        ],
    }
