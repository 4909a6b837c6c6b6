"""The input of the interactive map's script: cells and photos as plain data."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stages.partition.places import Places

Point = tuple[float, float]


@dataclass(frozen=True)
class MapItem:
    """One photo on the map.

    Positions are UTM east and north in metres; `others` are the runners-up. `right` is None if unknown;
    `card` is the id of the element that shows the photo, `photo` its number in the page's list of thumbnails,
    and `details` what the note below the map says (reason, facts and places). The list filters by `session`
    and by the size of the true `cell`.
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
    photo: int | None = None
    details: dict[str, Any] | None = None
    session: str = ""
    cell: str = ""


def map_data(
    places: Places,
    items: Sequence[MapItem],
    *,
    radius_m: float,
    focus: Literal["all", "items"] = "all",
    paths: Sequence[Sequence[Point]] = (),
    photos: Sequence[str] = (),
    base: dict[str, Any],
) -> dict[str, Any]:
    """Return the input of the map and the list: cells as packed numbers, items as they are.

    `radius_m` is drawn around the true position of a chosen photo; `focus` is in view at first; `paths` are
    the answers along each walk, `photos` thumbnails (data URIs) and `base` the data of a `BaseMap`.
    """
    cells = {
        "cell_m": places.cell_m,
        "p": _packed(places.p),
        "q": _packed(places.q),
        "span": _packed(places.span),
        "images": _packed(places.images),
    }
    return {
        "cells": cells,
        "items": [asdict(item) for item in items],
        "radius_m": radius_m,
        "focus": focus,
        "paths": list(paths),
        "photos": list(photos),
        **base,
    }


def _packed(values: npt.NDArray[Any]) -> str:
    """Return numbers as base64 of little-endian int32."""
    return base64.b64encode(np.clip(values, -(2**31), 2**31 - 1).astype("<i4").tobytes()).decode()
