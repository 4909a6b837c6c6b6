"""The queries as items of the map, worst first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.eval.report.cards import card_id
from stages.eval.report.data import ReportData
from stages.eval.report.map_data import MapItem, Point
from stages.index.clock import clock_seconds
from stages.models.localiser.walk import split_walks

RUNNERS_UP = 4
"""Runners-up of a query on the map."""


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
    sessions = [""] * data.queries.rows
    if "session" in data.queries.column_names:
        sessions = [str(name) for name in data.queries.column("session")]
    items = [
        replace(
            _item(data, int(query), has_card=int(query) in with_card),
            session=sessions[data.query_row[query]],
            cell=data.outcomes.cells[query],
        )
        for query in order
    ]
    return items, {int(query): number for number, query in enumerate(order)}


def walk_paths(data: ReportData) -> list[list[Point]]:
    """Return the answers of `sequence` along each walk, in order of time; empty without that localiser."""
    walked, queries = data.outcomes.walked, data.queries
    if walked is None:
        return []
    known = np.isfinite(walked[:, 0])
    rows = data.query_row[known]
    texts = [str(text) for text in queries.column("timestamp")[rows]]
    session = queries.column("session")[rows] if "session" in queries.column_names else [""] * len(rows)
    walks = split_walks(clock_seconds(pa.array(texts, pa.string())), [str(name) for name in session])
    return [[_point(walked[known][row]) for row in walk] for walk in walks if len(walk) > 1]


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
