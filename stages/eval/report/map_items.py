"""The queries as items of the map and as rows of its table, worst first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stages.eval.report.cards import card_id
from stages.eval.report.data import ReportData
from stages.eval.report.map_data import MapItem, Point
from stages.eval.report.numbers import HtmlTable
from stages.eval.report.page import metres
from stages.files import printable

RUNNERS_UP = 4
"""Runners-up of a query on the map."""

TABLE_ROWS = 200
"""Queries in the table below the map, for people who cannot see the map."""


def map_items(data: ReportData, chosen: Sequence[int]) -> tuple[list[MapItem], dict[int, int]]:
    """Return the queries on the map, worst first, and each query's number there."""
    outcomes = data.outcomes
    order = np.argsort(-outcomes.error_m, kind="stable")
    if len(order) > data.config.map_queries:
        sample = np.linspace(0, len(order) - 1, data.config.map_queries).round().astype(int)
        # Cards link to the map, so the queries that have one are always on it.
        keep = np.isin(order, list(chosen))
        keep[sample] = True
        order = order[keep]
    with_card = set(chosen)
    items = [_item(data, int(query), has_card=int(query) in with_card) for query in order]
    return items, {int(query): number for number, query in enumerate(order)}


def map_table(items: Sequence[MapItem]) -> HtmlTable:
    """Return the first items of the map as a table."""
    rows = [
        [str(number + 1), _error_text(item), _trust_text(item), printable(item.label)]
        for number, item in enumerate(items[:TABLE_ROWS])
    ]
    trust = "confidence" if any(item.confidence is not None for item in items) else "score"
    caption = f"The first {len(rows)} queries of the map, worst first"
    return HtmlTable(caption, ["", "error", trust, "query"], rows, name_column=3)


def _item(data: ReportData, query: int, *, has_card: bool) -> MapItem:
    outcomes = data.outcomes
    answered = bool(outcomes.answered[query])
    return MapItem(
        label=outcomes.key[query],
        truth=_point(outcomes.truth[query]),
        answer=_point(outcomes.answer[query]) if answered else None,
        others=tuple(_point(place) for place in outcomes.places[query][1 : 1 + RUNNERS_UP]),
        error_m=float(outcomes.error_m[query]) if answered else None,
        score=float(outcomes.score[query]) if answered else None,
        confidence=None if outcomes.confidence is None else float(outcomes.confidence[query]),
        abstained=bool(outcomes.abstained[query]),
        right=bool(outcomes.right[query]),
        card=card_id(query) if has_card else None,
    )


def _point(position: npt.NDArray[np.float64]) -> Point:
    return round(float(position[0]), 2), round(float(position[1]), 2)


def _error_text(item: MapItem) -> str:
    return "no answer" if item.error_m is None else metres(item.error_m)


def _trust_text(item: MapItem) -> str:
    value = item.score if item.confidence is None else item.confidence
    return "" if value is None else f"{value:.3f}"
