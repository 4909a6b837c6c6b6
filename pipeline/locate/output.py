"""How located photos are shown: lines for people, JSON for programs, a page with a map."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from pipeline import console
from pipeline.locate.answer import Answer, Candidate
from pipeline.locate.localiser import PhotoLocaliser
from stages.eval.report.gallery import Album
from stages.eval.report.map_view import MapItem, map_data, map_html
from stages.eval.report.page import document, metres
from stages.files import printable, replacing
from stages.images.read import UnreadableImage
from stages.index.utm_zone import Zone

Outcome = Answer | UnreadableImage

THUMBNAIL_PX = 240
PHOTOS_BYTES = 6_000_000
"""What the photos in a map's page may take together."""


def show(outcome: Outcome) -> None:
    """Print where one photo was taken, or why it cannot be read."""
    if isinstance(outcome, UnreadableImage):
        console.error(f"{printable(outcome.path)}: {outcome.reason}")
    else:
        console.facts(printable(outcome.photo), facts(outcome))


def facts(answer: Answer) -> list[tuple[str, object]]:
    """Return (name, value) pairs for a person to read."""
    first, *others = answer.places
    rows: list[tuple[str, object]] = []
    if first.latitude is not None:
        rows.append(("position", degrees(first)))
    rows += [("UTM", utm_text(first)), ("confidence", confidence_text(answer))]
    if answer.exif is not None:
        away = "" if answer.exif_distance_m is None else f", {metres(answer.exif_distance_m)} from the answer"
        rows.append(("EXIF GPS", f"{answer.exif[0]:.6f}, {answer.exif[1]:.6f}{away}"))
    for rank, place in enumerate(others, start=2):
        away = metres(float(np.hypot(place.utm_east - first.utm_east, place.utm_north - first.utm_north)))
        where = utm_text(place) if place.latitude is None else degrees(place)
        rows.append((f"{rank}.", f"{where}   {away} from the first, score {place.score:.2f}"))
    return rows


def confidence_text(answer: Answer) -> str:
    """Return the confidence in words."""
    if answer.confidence is None:
        return "unknown: the localiser is not calibrated"
    if answer.abstained:
        return f"{answer.confidence:.2f}, too low to rely on: rather no place that the localiser knows"
    return f"{answer.confidence:.2f}"


def as_json(outcomes: Sequence[Outcome]) -> str:
    """Return a JSON list with an object per photo, in order; an unreadable one has only photo and error."""
    content = [
        {"photo": printable(outcome.path), "error": outcome.reason}
        if isinstance(outcome, UnreadableImage)
        else outcome.as_dict()
        for outcome in outcomes
    ]
    return json.dumps(content, indent=2, allow_nan=False)


def write_map(path: Path, localiser: PhotoLocaliser, outcomes: Sequence[Outcome]) -> None:
    """Write a self-contained page: the map of all answers, and each photo with its places."""
    album = Album(THUMBNAIL_PX, PHOTOS_BYTES)
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    items = [_item(answer, number) for number, answer in enumerate(answers)]
    cards = "".join(_card(answer, number, album) for number, answer in enumerate(answers))
    faults = "".join(
        f"<li>{escape(printable(fault.path))}: {escape(fault.reason)}</li>"
        for fault in outcomes
        if isinstance(fault, UnreadableImage)
    )
    count = f"{len(answers):,} photo{'s' if len(answers) != 1 else ''}"
    symbols = (
        "A diamond is where the localiser puts a photo, a ring where its EXIF GPS says it was taken. "
        "Choose a photo to see the runners-up, by number."
    )
    unreadable = f"<section><h2>Unreadable</h2><ul>{faults}</ul></section>" if faults else ""
    body = (
        f"<header><h1>Where {count} {'were' if len(answers) != 1 else 'was'} taken</h1></header><main>"
        f'<section><p class="symbols">{symbols}</p>'
        f"{map_html(items, title='Map of the photos', unknown='Photos')}</section>"
        f"<section>{cards}</section>{unreadable}</main><footer>made by placecache</footer>"
    )
    radius_m = float(localiser.trained.meta.get("fusion", {}).get("radius_m", 0.0))
    page = document(
        "Located photos",
        body,
        data=map_data(localiser.trained.places, items, radius_m=radius_m, focus="items"),
    )
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")


def degrees(place: Candidate) -> str:
    """Return latitude and longitude, good to a decimetre."""
    return f"{place.latitude:.6f}, {place.longitude:.6f}"


def utm_text(place: Candidate) -> str:
    """Return the UTM position in whole metres."""
    return f"{place.zone} {place.utm_east:.0f} E {place.utm_north:.0f} N".strip()


def _item(answer: Answer, number: int) -> MapItem:
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
        card=f"photo-{number}",
    )


def _card(answer: Answer, number: int, album: Album) -> str:
    thumb = album.thumbnail(answer.photo)
    picture = '<span class="none">no photo to show</span>'
    if thumb is not None:
        picture = f'<img src="{thumb}" alt="Photo {number + 1}" loading="lazy">'
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(str(value))}</td></tr>"
        for name, value in facts(answer)
        if name != "position"
    )
    first = answer.places[0]
    title = utm_text(first)
    if first.latitude is not None:
        title = f'<a href="geo:{first.latitude},{first.longitude}">{degrees(first)}</a>'
    return (
        f'<article class="card outside" id="photo-{number}"><div class="card-head"><h3>{title}</h3>'
        f'<button type="button" data-item="{number}">Show on map</button>'
        f"<code>{escape(printable(answer.photo))}</code></div>"
        f'<div class="shots"><figure class="shot query"><div>{picture}</div></figure>'
        f'<div class="facts-table"><table>{rows}</table></div></div></article>'
    )
