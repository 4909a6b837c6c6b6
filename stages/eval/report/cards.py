"""A card per chosen query: its photo beside photos of the predicted cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.eval.report.data import ReportData
from stages.eval.report.gallery import Album, DatabasePhotos, nearest_rows, thumbnails_of
from stages.eval.report.text import metres

_RANKS = ("1st", "2nd", "3rd")


@dataclass(frozen=True)
class PhotoFigure:
    """Thumbnails (data URIs) with a caption; `kind` is query, truth, right or wrong."""

    photos: list[str]
    name: str
    detail: str
    kind: str


@dataclass(frozen=True)
class Card:
    """A query beside its predicted cells; `kind` is right, wrong or outside, `map_number` its place there."""

    id: str
    kind: str
    key: str
    error_m: float
    map_number: int | None
    query: PhotoFigure
    shots: list[PhotoFigure]


def card_id(query: int) -> str:
    """Return the id of a query's card."""
    return f"query-{query}"


def make_cards(
    data: ReportData, chosen: list[int], album: Album, number_on_map: dict[int, int]
) -> list[Card]:
    """Return the cards of the chosen queries (rows), in order; `album` makes the thumbnails."""
    outcomes = data.outcomes
    class_ids = [np.array([], np.int64), *(_class_ids(data, query) for query in chosen)]
    photos = DatabasePhotos.of(data.database, data.labels, np.concatenate(class_ids))
    nearest_row, away_m = nearest_rows(data.database, outcomes.truth[chosen])
    headings = data.queries.column("heading")[data.query_row]
    # The queries' own photos first: if the budget runs out, photos of the database are missing instead.
    own = [thumbnails_of(album, [data.queries.image_path(outcomes.key[query])]) for query in chosen]
    cards = []
    for place, query in enumerate(chosen):
        shots = _guesses(data, photos, album, query, float(headings[query]))
        if nearest_row[place] >= 0:
            thumbnails = thumbnails_of(album, [photos.path_of(int(nearest_row[place]))])
            detail = f"{metres(away_m[place])} from the truth"
            shots.append(PhotoFigure(thumbnails, "Nearest database photo", detail, "truth"))
        cards.append(
            Card(
                id=card_id(query),
                kind=_kind(data, query),
                key=outcomes.key[query],
                error_m=outcomes.error_m[query],
                map_number=number_on_map.get(query),
                query=PhotoFigure(own[place], "Query", _stated(data, query), "query"),
                shots=shots,
            )
        )
    return cards


def _guesses(
    data: ReportData, photos: DatabasePhotos, album: Album, query: int, heading: float
) -> list[PhotoFigure]:
    """Return a figure per predicted cell, best first."""
    figures = []
    for rank, class_id in enumerate(_class_ids(data, query).tolist()):
        distance_m = float(np.hypot(*(data.places.centres[class_id] - data.outcomes.truth[query])))
        paths = photos.of_class(class_id, data.config.photos_per_cell, heading=heading)
        images = int(data.places.images[class_id])
        detail = f"{metres(distance_m)} off, {images:,} image{'s' if images != 1 else ''}"
        name = _RANKS[rank] if rank < len(_RANKS) else f"{rank + 1}th"
        kind = "right" if distance_m <= data.outcomes.radius_m else "wrong"
        figures.append(PhotoFigure(thumbnails_of(album, paths), f"{name} cell", detail, kind))
    return figures


def _class_ids(data: ReportData, query: int) -> npt.NDArray[np.int64]:
    return data.outcomes.class_ids[query][: data.config.cells]


def _kind(data: ReportData, query: int) -> str:
    if data.outcomes.right[query]:
        return "right"
    return "wrong" if data.reachable[query] else "outside"


def _stated(data: ReportData, query: int) -> str:
    outcomes = data.outcomes
    if outcomes.confidence is None:
        return f"score {outcomes.score[query]:.3f}"
    stated = f"confidence {outcomes.confidence[query]:.2f}"
    return f"{stated}, abstained" if outcomes.abstained[query] else stated
