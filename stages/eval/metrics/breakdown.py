"""LR@N with its uncertainty, and where localisation succeeds: by class size, distance, light, session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import KDTree

from stages.index.manifest import Manifest
from stages.partition.places import Places

Floats = npt.NDArray[np.float64]
CONDITIONS = ("light", "session", "device")
"""Columns of a manifest that queries are told apart by, where it has them."""
_VALUES = 8
"""A column with more values than this is no condition."""


def intervals(
    errors: Floats, radius_m: float, tops: Sequence[int], redrawn: int, seed: int
) -> dict[int, tuple[float, float]]:
    """Return 95 % bootstrap intervals of LR@N in percent, by N: queries are redrawn with replacement.

    Parameters
    ----------
    errors : ndarray, shape (Q, top)
        Metres.
    radius_m : float
        A prediction this near is right.
    tops : sequence of int
        The values of N.
    redrawn : int
        How many query sets to draw; 0 gives no intervals.
    seed : int
        Of the draws.
    """
    if not redrawn or not len(errors):
        return {}
    random, count = np.random.default_rng(seed), len(errors)
    found = {}
    for top in tops:
        share = float((errors[:, :top] <= radius_m).any(axis=1).mean())
        # Redrawing queries that are right or wrong is drawing from a binomial distribution.
        drawn = 100 * random.binomial(count, share, redrawn) / count
        low, high = np.quantile(drawn, [0.025, 0.975])
        found[top] = (float(low), float(high))
    return found


def buckets(places: Places, truth: Floats) -> npt.NDArray[np.str_]:
    """Return head, mid, tail or none for the cell that each query lies in."""
    # One more for place -1.
    return np.append(places.bucket, "none")[places.at(truth)]


def distances(places: Places, truth: Floats) -> npt.NDArray[np.str_]:
    """Return how far the nearest trained cell's centre is, in words, in steps of the least cell's side."""
    if not len(places) or not len(truth):
        return np.full(len(truth), "none", np.str_)
    away = KDTree(places.centres).query(truth)[0][:, 0] / places.cell_m
    side = places.cell_m
    names = np.array([f"within {side:g} m", f"{side:g} to {2 * side:g} m", f"beyond {2 * side:g} m"])
    named: npt.NDArray[np.str_] = names[np.digitize(away, [1, 2], right=True)]
    return named


def conditions(queries: Manifest, rows: npt.NDArray[np.int64]) -> Iterator[tuple[str, npt.NDArray[np.str_]]]:
    """Yield (column, value of each query) for the conditions that the manifest tells."""
    for name in CONDITIONS:
        if name in queries.column_names:
            values = queries.column(name)[rows].astype(np.str_)
            if 1 < len(np.unique(values)) <= _VALUES:
                yield name, values


def by_value(prefix: str, values: npt.NDArray[np.str_], right: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Return LR@1 in percent and the number of queries for each value, under readable names."""
    numbers: dict[str, float] = {}
    for value in np.unique(values):
        mine = values == value
        numbers[f"{prefix} {value} LR@1"] = round(100 * float(right[mine].mean()), 3)
        numbers[f"{prefix} {value} queries"] = int(mine.sum())
    return numbers
