"""The queries as items of the map, worst first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stages.eval.report.cards import card_id
from stages.eval.report.inputs import ReportInputs
from stages.eval.report.map_view import MapItem

OTHERS = 4
"""Runners-up that the map shows of the chosen query."""


def map_items(source: ReportInputs, chosen: Sequence[int]) -> tuple[list[MapItem], dict[int, int]]:
    """Return what the map shows, worst first, and each query's number there."""
    outcomes = source.outcomes
    order = np.argsort(-outcomes.error_m, kind="stable")
    if len(order) > source.config.map_queries:
        sample = np.linspace(0, len(order) - 1, source.config.map_queries).round().astype(int)
        # Cards link to the map, so the queries that have one are always on it.
        keep = np.isin(order, list(chosen))
        keep[sample] = True
        order = order[keep]
    number = {int(query): place for place, query in enumerate(order)}
    return [_item(source, int(query), int(query) in set(chosen)) for query in order], number


def _item(source: ReportInputs, query: int, has_card: bool) -> MapItem:
    outcomes = source.outcomes
    answered = bool(outcomes.answered[query])
    confidence = None if outcomes.confidence is None else float(outcomes.confidence[query])
    return MapItem(
        label=outcomes.key[query],
        truth=_place(outcomes.truth[query]),
        answer=_place(outcomes.answer[query]) if answered else None,
        others=tuple(_place(place) for place in outcomes.places[query][1 : 1 + OTHERS]),
        error_m=float(outcomes.error_m[query]) if answered else None,
        score=float(outcomes.score[query]) if answered else None,
        confidence=confidence,
        abstained=bool(outcomes.abstained[query]),
        right=bool(outcomes.right[query]),
        card=card_id(query) if has_card else None,
    )


def _place(position: npt.NDArray[np.float64]) -> tuple[float, float]:
    return round(float(position[0]), 2), round(float(position[1]), 2)
