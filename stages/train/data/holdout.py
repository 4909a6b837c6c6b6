"""Choice of the images held out for validation: one visit each of some classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from stages.index.clock import DAY_LENGTH, day_of
from stages.index.manifest import Manifest

_POSITION_M = 1.0


def hold_out(
    classes: npt.NDArray[np.integer[Any]],
    visits: npt.NDArray[np.integer[Any]],
    wanted: int,
    random: np.random.Generator,
) -> npt.NDArray[np.bool_]:
    """Return whether each image is held out, shape (n,); about `wanted` are.

    Photos of one walk come in bursts that share position and view. A held-out photo would be too easy if the
    rest of its burst was trained on, so a class loses all of its photos of one visit, at most half of its
    images; classes follow in random order until there are enough. Other classes train on the same walk: a
    walk is not held out over the whole city.

    Measured beside walks held out over the whole city in docs/experiments.md ("What is held out").

    Parameters
    ----------
    classes : ndarray of int, shape (n,)
        Class id of each image.
    visits : ndarray of int, shape (n,)
        Visit of each image, as `visit_numbers` counts them.
    wanted : int
        Number of images to hold out.
    random : numpy.random.Generator
        Source of randomness.
    """
    holdout = np.zeros(len(classes), np.bool_)
    order = np.argsort(classes, kind="stable")
    ids, starts = np.unique(classes[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    taken = 0
    for place in random.permutation(len(ids)):
        if taken >= wanted:
            break
        members = order[starts[place] : ends[place]]
        numbers, counts = np.unique(visits[members], return_counts=True)
        small = numbers[2 * counts <= len(members)]
        if len(small):
            chosen = members[visits[members] == random.choice(small)]
            holdout[chosen] = True
            taken += len(chosen)
    return holdout


def visit_numbers(manifest: Manifest) -> npt.NDArray[np.int64]:
    """Return the number of every row's visit, shape (rows,): its day, or its position if none is stated."""
    days: dict[str, int] = {"": -1}
    numbers = np.empty(manifest.rows, np.int64)
    start = 0
    for batch in manifest.batches(["timestamp", "utm_east", "utm_north"]):
        stop = start + batch.num_rows
        starts = pc.utf8_slice_codeunits(batch["timestamp"], 0, DAY_LENGTH).dictionary_encode()
        codes = [days.setdefault(day_of(text), len(days)) for text in starts.dictionary.to_pylist()]
        known = np.array(codes or [-1], np.int64)[starts.indices.to_numpy()]
        numbers[start:stop] = np.where(known < 0, _position_numbers(batch), known)
        start = stop
    return numbers


def _position_numbers(batch: Any) -> npt.NDArray[np.int64]:
    """Return a negative number for each square metre."""
    east: npt.NDArray[np.int64] = np.floor(batch["utm_east"].to_numpy() / _POSITION_M).astype(np.int64)
    north: npt.NDArray[np.int64] = np.floor(batch["utm_north"].to_numpy() / _POSITION_M).astype(np.int64)
    return -1 - ((east << 25) + north)
