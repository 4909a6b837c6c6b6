"""Located photos as lines for people, JSON for programs, or a page with a map."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import console
from pipeline.locate.answer import Answer, Candidate
from pipeline.locate.localiser import PhotoLocaliser
from pipeline.locate.walk import WalkSpan, by_walk
from stages.eval.report.gallery import Album
from stages.eval.report.map_data import MapItem, map_data
from stages.eval.report.page import render
from stages.eval.report.text import metres
from stages.files import printable, replacing
from stages.images.read import UnreadableImage
from stages.index.utm_zone import Zone

Outcome = Answer | UnreadableImage

THUMBNAIL_PX = 240
PHOTOS_BYTES = 6_000_000
"""Limit of all photos in a map's page together."""


@dataclass(frozen=True)
class PhotoCard:
    """A photo beside its answer; `geo` is the content of a geo: link, `thumbnail` a data URI."""

    id: str
    photo: Path
    position: str
    geo: str | None
    thumbnail: str | None
    facts: list[tuple[str, object]]


def show(outcome: Outcome) -> None:
    """Print the position of one photo, or why it cannot be read."""
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
    if answer.walk is not None:
        rows.append(("walk", walk_text(answer.walk)))
    if answer.together:
        rows.append(("together", f"{len(answer.together)} photos of one spot"))
    if answer.exif is not None:
        away = "" if answer.exif_distance_m is None else f", {metres(answer.exif_distance_m)} from the answer"
        rows.append(("EXIF GPS", f"{answer.exif[0]:.6f}, {answer.exif[1]:.6f}{away}"))
    for rank, place in enumerate(others, start=2):
        away = metres(float(np.hypot(place.utm_east - first.utm_east, place.utm_north - first.utm_north)))
        where = utm_text(place) if place.latitude is None else degrees(place)
        rows.append((f"{rank}.", f"{where}   {away} from the first, score {place.score:.2f}"))
    return rows


def confidence_text(answer: Answer) -> str:
    """Return the confidence with its meaning."""
    known = "unknown: not calibrated, usually because training held out too few photos"
    if answer.confidence is not None:
        known = f"{answer.confidence:.2f}"
    return f"withheld ({known}): no photo of this city looks like it" if answer.abstained else known


def walk_text(span: WalkSpan) -> str:
    """Return which photos an answer is based on."""
    if span.photos == 1:
        return "this photo alone"
    return f"{span.photos} photos, up to {span.before_s:,.0f} s before and {span.after_s:,.0f} s after"


def as_json(outcomes: Sequence[Outcome]) -> str:
    """Return a JSON list with one object per photo; that of an unreadable photo has only photo and error."""
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
    cards = [_card(answer, number, album) for number, answer in enumerate(answers)]
    items = [_item(answer, card.id) for answer, card in zip(answers, cards, strict=True)]
    radius_m = float(localiser.trained.meta.get("fusion", {}).get("radius_m", 0.0))
    page = render(
        "located.html",
        map_data=map_data(
            localiser.trained.places, items, radius_m=radius_m, focus="items", paths=_paths(answers)
        ),
        items=items,
        cards=cards,
        unreadable=[outcome for outcome in outcomes if isinstance(outcome, UnreadableImage)],
    )
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")


def degrees(place: Candidate) -> str:
    """Return latitude and longitude with six decimals (about a decimetre)."""
    return f"{place.latitude:.6f}, {place.longitude:.6f}"


def utm_text(place: Candidate) -> str:
    """Return the UTM position in whole metres."""
    return f"{place.zone} {place.utm_east:.0f} E {place.utm_north:.0f} N".strip()


def _paths(answers: Sequence[Answer]) -> list[list[tuple[float, float]]]:
    """Return the first places along each walk, in order of time."""
    walked = [answer for answer in answers if answer.walk is not None and answer.walk.session]
    return [
        [(answer.places[0].utm_east, answer.places[0].utm_north) for answer in walk]
        for _, walk in by_walk(walked)
    ]


def _card(answer: Answer, number: int, album: Album) -> PhotoCard:
    first = answer.places[0]
    position, geo = utm_text(first), None
    if first.latitude is not None:
        position, geo = degrees(first), f"{first.latitude},{first.longitude}"
    rows = [(name, value) for name, value in facts(answer) if name != "position"]
    return PhotoCard(f"photo-{number}", answer.photo, position, geo, album.thumbnail(answer.photo), rows)


def _item(answer: Answer, card: str) -> MapItem:
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
        card=card,
    )
