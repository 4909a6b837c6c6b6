"""Located photos in words: lines for a terminal, and texts for the page with the map."""

from __future__ import annotations

import numpy as np

from pipeline import console
from pipeline.locate.alike import AlikePhoto
from pipeline.locate.answer import Answer, Candidate
from pipeline.locate.walk import WalkSpan
from stages.eval.report.text import metres
from stages.files import printable
from stages.images.read import UnreadableImage

Outcome = Answer | UnreadableImage


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
    rows += [("UTM", utm_text(first)), ("confidence", confidence_text(answer)), ("because", answer.reason)]
    if answer.walk is not None:
        rows.append(("walk", walk_text(answer.walk)))
    if answer.together:
        rows.append(("together", f"{len(answer.together)} photos of one spot"))
    if answer.exif is not None:
        away = "" if answer.exif_distance_m is None else f", {metres(answer.exif_distance_m)} from the answer"
        rows.append(("EXIF GPS", f"{answer.exif[0]:.6f}, {answer.exif[1]:.6f}{away}"))
    rows += [("looks like", alike_text(photo)) for photo in first.alike]
    for rank, place in enumerate(others, start=2):
        rows.append((f"{rank}.", f"{where(place)}   {remark(place, first)}"))
    return rows


def alike_text(photo: AlikePhoto) -> str:
    """Return a database photo with its likeness."""
    return f"{printable(photo.photo)}, likeness {photo.likeness:.2f}"


def remark(place: Candidate, first: Candidate) -> str:
    """Return the share of a place and its distance from the first place."""
    away_m = float(np.hypot(place.utm_east - first.utm_east, place.utm_north - first.utm_north))
    away = "" if place is first else f"{metres(away_m)} from the first, "
    return f"{away}share {place.score:.2f}"


def where(place: Candidate) -> str:
    """Return degrees, or the UTM position where these are unknown."""
    return utm_text(place) if place.latitude is None else degrees(place)


def confidence_text(answer: Answer) -> str:
    """Return the confidence with its meaning."""
    known = "unknown"
    if answer.confidence is not None:
        known = f"{answer.confidence:.2f}"
    return f"withheld ({known}): no photo of this city looks like it" if answer.abstained else known


def walk_text(span: WalkSpan) -> str:
    """Return which photos an answer is based on."""
    if span.photos == 1:
        return "this photo alone"
    return f"{span.photos} photos, up to {span.before_s:,.0f} s before and {span.after_s:,.0f} s after"


def degrees(place: Candidate) -> str:
    """Return latitude and longitude with six decimals (about a decimetre)."""
    return f"{place.latitude:.6f}, {place.longitude:.6f}"


def utm_text(place: Candidate) -> str:
    """Return the UTM position in whole metres."""
    return f"{place.zone} {place.utm_east:.0f} E {place.utm_north:.0f} N".strip()
