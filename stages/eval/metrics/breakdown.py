"""LR@1 by class size, distance, light, session and device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import KDTree

from stages.index.manifest import Manifest
from stages.partition.places import Places

Floats = npt.NDArray[np.float64]
CONDITIONS = ("light", "session", "device")
"""Columns of the manifest that LR@1 is broken down by, if they exist."""
_VALUES = 8
"""A column with more values than this is left out."""


def buckets(places: Places, truth: Floats) -> npt.NDArray[np.str_]:
    """Return head, mid, tail or none for the cell of each query."""
    # The appended "none" is for place -1: no cell.
    return np.append(places.bucket, "none")[places.at(truth)]


def distances(places: Places, truth: Floats) -> npt.NDArray[np.str_]:
    """Return the distance to the nearest cell centre, named in steps of the smallest cell's side."""
    if not len(places) or not len(truth):
        return np.full(len(truth), "none", np.str_)
    away = KDTree(places.centres).query(truth)[0][:, 0] / places.cell_m
    side = places.cell_m
    names = np.array([f"within {side:g} m", f"{side:g} to {2 * side:g} m", f"beyond {2 * side:g} m"])
    named: npt.NDArray[np.str_] = names[np.digitize(away, [1, 2], right=True)]
    return named


def conditions(queries: Manifest, rows: npt.NDArray[np.int64]) -> Iterator[tuple[str, npt.NDArray[np.str_]]]:
    """Yield (column, value of each query) for the conditions in the manifest."""
    for name in CONDITIONS:
        if name in queries.column_names:
            values = queries.column(name)[rows].astype(np.str_)
            if 1 < len(np.unique(values)) <= _VALUES:
                yield name, values


def by_value(prefix: str, values: npt.NDArray[np.str_], right: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Return LR@1 in percent and the number of queries of each value, such as "light night LR@1"."""
    numbers: dict[str, float] = {}
    for value in np.unique(values):
        chosen = values == value
        numbers[f"{prefix} {value} LR@1"] = round(100 * float(right[chosen].mean()), 3)
        numbers[f"{prefix} {value} queries"] = int(chosen.sum())
    return numbers
