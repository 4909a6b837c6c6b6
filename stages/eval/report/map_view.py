"""The interactive map: what it shows as plain data, and the HTML around its canvas."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stages.partition.places import Places

Point = tuple[float, float]


@dataclass(frozen=True)
class MapItem:
    """One photo on the map.

    Attributes
    ----------
    label : str
        Its name.
    truth, answer : tuple of float, or None
        UTM east and north in metres of where it was taken and of where it is said to be.
    others : tuple of tuple of float
        The runners-up, second place first.
    error_m : float or None
        From truth to answer.
    score, confidence : float or None
        Of the answer.
    abstained : bool
        Whether the answer was withheld.
    right : bool or None
        Whether it lies within the radius; None where nobody knows.
    card : str or None
        Id of the element that shows its photos.
    picture : str or None
        A data URI, where there is no such element.
    """

    label: str
    truth: Point | None
    answer: Point | None
    others: tuple[Point, ...]
    error_m: float | None
    score: float | None
    confidence: float | None
    abstained: bool
    right: bool | None
    card: str | None = None
    picture: str | None = None


def map_data(
    places: Places,
    items: Sequence[MapItem],
    *,
    radius_m: float,
    focus: Literal["all", "items"] = "all",
) -> dict[str, Any]:
    """Return what the map's script reads: cells as packed numbers, items as they are.

    Parameters
    ----------
    places : Places
        The cells.
    items : sequence of MapItem
        The photos.
    radius_m : float
        Of the circle around a chosen photo's true position.
    focus : {"all", "items"}
        What is in view at first.
    """
    cells = {
        "cell_m": places.cell_m,
        "p": _packed(places.p),
        "q": _packed(places.q),
        "span": _packed(places.span),
        "images": _packed(places.images),
    }
    return {"cells": cells, "items": [asdict(item) for item in items], "radius_m": radius_m, "focus": focus}


def map_html(items: Sequence[MapItem], *, title: str, unknown: str = "Truth unknown") -> str:
    """Return the map's element: buttons, canvas and the line that says what is chosen.

    Parameters
    ----------
    items : sequence of MapItem
        What it shows.
    title : str
        What a screen reader calls it.
    unknown : str
        What items are called of which nobody knows whether they are right.
    """
    kinds = {item.right for item in items}
    filters = [
        _toggle(name, text)
        for name, text, kind in (
            ("right", "Right", True),
            ("wrong", "Wrong", False),
            ("unknown", unknown, None),
        )
        if kind in kinds
    ]
    if any(item.truth and item.answer for item in items):
        filters.append(_toggle("lines", "Error lines", key="line"))
    filters.append(_toggle("cells", "Cells", key="cell"))
    actions = [
        ("previous", "\u2039", "Previous photo"),
        ("next", "\u203a", "Next photo"),
        ("out", "\u2212", "Zoom out"),
        ("in", "+", "Zoom in"),
        ("fit", "Fit", "Show the whole map"),
    ]
    buttons = "".join(
        f'<button type="button" data-action="{action}" aria-label="{text}" title="{text}">{sign}</button>'
        for action, sign, text in actions
    )
    hint = (
        "Drag to move. Click the map first to zoom with the wheel or fingers. "
        "Keys: arrows, + and -, 0 for all, n and p for the next and previous photo."
    )
    return (
        f'<div class="map" id="map"><div class="map-bar">{"".join(filters)}'
        f'<span class="map-actions">{buttons}</span></div>'
        f'<div class="map-stage"><canvas tabindex="0" role="application" aria-label="{escape(title)}" '
        'aria-describedby="map-note"></canvas><div class="map-tip" hidden></div></div>'
        f'<div class="map-note" id="map-note" role="status" data-hint="{hint}">{hint}</div>'
        "<noscript>The map needs JavaScript; the positions stand below it as well.</noscript></div>"
    )


def _toggle(name: str, text: str, *, key: str | None = None) -> str:
    return (
        f'<button type="button" data-show="{name}" aria-pressed="true">'
        f'<span class="key {key or name}"></span>{text}</button>'
    )


def _packed(values: npt.NDArray[Any]) -> str:
    """Return numbers as base64 of little-endian int32."""
    return base64.b64encode(np.clip(values, -(2**31), 2**31 - 1).astype("<i4").tobytes()).decode()
