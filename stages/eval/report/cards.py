"""A card per chosen query: its photo beside the photos of the cells that were predicted."""

from __future__ import annotations

from html import escape

import numpy as np

from stages.eval.report.gallery import Album, DatabasePhotos, nearest_rows, thumbnails_of
from stages.eval.report.inputs import ReportInputs
from stages.eval.report.outcomes import Outcomes
from stages.eval.report.page import metres
from stages.files import printable

_RANKS = ("1st", "2nd", "3rd")


def card_id(query: int) -> str:
    """Return the id of a query's card."""
    return f"query-{query}"


def cards_html(source: ReportInputs, chosen: list[int], album: Album, number_on_map: dict[int, int]) -> str:
    """Return the cards of the chosen queries, in order.

    Parameters
    ----------
    source : ReportInputs
        What they are made of.
    chosen : list of int
        Rows of the queries.
    album : Album
        Makes the thumbnails within its budget.
    number_on_map : dict of int to int
        Query -> its number on the map, where it is there.
    """
    guesses = [source.outcomes.class_ids[query][: source.config.cells] for query in chosen]
    photos = DatabasePhotos.of(
        source.database, source.labels, np.concatenate([*guesses, np.array([], np.int64)])
    )
    nearest, away = nearest_rows(source.database, source.outcomes.truth[chosen])
    headings = source.queries.column("heading")[source.query_row]
    # The queries' own photos first: if the budget runs out, it is the others that are missing.
    own = [thumbnails_of(album, [source.queries.image_path(source.outcomes.key[query])]) for query in chosen]
    cards = []
    for place, query in enumerate(chosen):
        shots = [
            _guess(source, photos, album, query, rank, int(class_id), float(headings[query]))
            for rank, class_id in enumerate(guesses[place])
        ]
        if nearest[place] >= 0:
            thumbs = thumbnails_of(album, [photos.path_of(int(nearest[place]))])
            shots.append(
                _shot(thumbs, "Nearest database photo", f"{metres(away[place])} from the truth", "truth")
            )
        head = _head(source, query, place, number_on_map.get(query))
        query_shot = _shot(own[place], "Query", _stated(source.outcomes, query), "query")
        cards.append(
            f'<article class="card {_kind(source, query)}" id="{card_id(query)}">{head}<div class="shots">'
            f'{query_shot}<div class="guesses">{"".join(shots)}</div></div></article>'
        )
    return "".join(cards)


def _guess(
    source: ReportInputs,
    photos: DatabasePhotos,
    album: Album,
    query: int,
    rank: int,
    class_id: int,
    heading: float,
) -> str:
    distance = float(np.hypot(*(source.places.centres[class_id] - source.outcomes.truth[query])))
    thumbs = thumbnails_of(album, photos.of_class(class_id, source.config.photos_per_cell, heading=heading))
    images = int(source.places.images[class_id])
    detail = f"{metres(distance)} off, {images:,} image{'s' if images != 1 else ''}"
    right = distance <= source.outcomes.radius_m
    name = _RANKS[rank] if rank < len(_RANKS) else f"{rank + 1}th"
    return _shot(thumbs, f"{name} cell", detail, "right" if right else "wrong")


def _shot(thumbs: list[str], name: str, detail: str, kind: str) -> str:
    pictures = "".join(f'<img src="{text}" alt="{name}" loading="lazy">' for text in thumbs)
    if not thumbs:
        pictures = '<span class="none">no photo to show</span>'
    return (
        f'<figure class="shot {kind}"><div>{pictures}</div>'
        f"<figcaption><b>{name}</b><br>{escape(detail)}</figcaption></figure>"
    )


def _head(source: ReportInputs, query: int, place: int, number: int | None) -> str:
    error = metres(source.outcomes.error_m[query])
    verdict = {"right": "right", "wrong": "wrong", "outside": "wrong, and no cell could have been right"}
    button = "" if number is None else f'<button type="button" data-item="{number}">Show on map</button>'
    return (
        f'<div class="card-head"><h3>{place + 1}. {error} off</h3>'
        f'<span class="quiet">{verdict[_kind(source, query)]}</span>{button}'
        f"<code>{escape(printable(source.outcomes.key[query]))}</code></div>"
    )


def _kind(source: ReportInputs, query: int) -> str:
    if source.outcomes.right[query]:
        return "right"
    return "wrong" if source.reachable[query] else "outside"


def _stated(outcomes: Outcomes, query: int) -> str:
    if outcomes.confidence is None:
        return f"score {outcomes.score[query]:.3f}"
    stated = f"confidence {outcomes.confidence[query]:.2f}"
    return f"{stated}, abstained" if outcomes.abstained[query] else stated
