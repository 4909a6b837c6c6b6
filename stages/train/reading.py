"""Rows of the stores into memory, checked on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.errors import RecipeMismatch, StoreError
from cache.reader import FeatureReader
from stages.classes import ViewPlan
from stages.errors import ConfigError

Rows = tuple[int, int]
"""The first row of a range and the one after its last."""


def chosen_inputs(inputs: str | tuple[str, ...], reader: FeatureReader) -> tuple[str, ...]:
    """Return the outputs to join into a feature.

    Raises
    ------
    ConfigError
        If the store lacks one of them.
    """
    if isinstance(inputs, str):
        return tuple(reader.outputs)
    absent = [name for name in inputs if name not in reader.outputs]
    if absent:
        raise ConfigError(
            f"train.inputs names {', '.join(absent)}, but {reader.store.path} holds "
            f"{', '.join(reader.outputs)}: choose among these, or add it to extract.outputs"
        )
    return inputs


def load_rows(
    reader: FeatureReader,
    wanted: npt.NDArray[np.bool_],
    inputs: tuple[str, ...],
    place: torch.device,
    ranges: Sequence[Rows] | None = None,
) -> Tensor:
    """Return features of the rows marked in `wanted`, shape (n, F), read chunk by chunk.

    Parameters
    ----------
    reader : FeatureReader
        The store.
    wanted : ndarray of bool, shape (rows,)
        Which rows.
    inputs : tuple of str
        Outputs to join.
    place : torch.device
        Where to put them.
    ranges : sequence of (start, stop), optional
        Only rows of these ranges, in this order.

    Raises
    ------
    StoreError
        If the place has no memory for them.
    """
    ranges = [(0, reader.rows)] if ranges is None else ranges
    dtype = getattr(torch, reader.recipe.dtype)
    shape = (sum(int(wanted[start:stop].sum()) for start, stop in ranges), reader.length(inputs))
    try:
        features = torch.empty(shape, dtype=dtype, device=place)
    except (MemoryError, RuntimeError) as error:
        gigabytes = shape[0] * shape[1] * dtype.itemsize / 1e9
        raise StoreError(
            f"{gigabytes:.1f} GB of features do not fit into the memory of {place}: set train.residency "
            "to auto, host or stream, or train.inputs to fewer outputs"
        ) from error
    filled = 0
    for start, stop in (block for span in ranges for block in reader.blocks(*span)):
        keep = wanted[start:stop]
        count = int(keep.sum())
        if count:
            block = reader.read(start, stop, inputs)
            kept = torch.from_numpy(block if count == len(block) else block[keep])
            _require_finite(kept, reader, start)
            features[filled : filled + count] = kept.to(place)
            filled += count
    return features


def _require_finite(features: Tensor, reader: FeatureReader, start: int) -> None:
    # A sum is not finite if a number is not, and is much faster than asking each.
    if not bool(features.sum(dtype=torch.float32).isfinite()):
        raise StoreError(
            f"{reader.store.path} holds a feature that is not finite in the chunk of row {start}, "
            "though its ledger calls it sound: run `pipeline extract --replace`"
        )


def open_views(path: Path | None, plan: ViewPlan, database: FeatureReader) -> FeatureReader:
    """Return the store of the planned views.

    Raises
    ------
    StoreError
        If there is none, it is incomplete, or it holds other views than planned.
    RecipeMismatch
        If another backbone made it.
    """
    if path is None or not path.exists():
        raise StoreError(
            f"{len(plan)} views are planned but {path or 'their store'} does not exist: run "
            "`pipeline extract --split views`, or set train.augment_views to false"
        )
    reader = FeatureReader.open(path)
    if reader.rows != len(plan):
        raise StoreError(
            f"{path} holds {reader.rows} views, the plan has {len(plan)}: "
            "run `pipeline extract --split views`"
        )
    reader.require_complete()
    plain = dataclasses.replace(reader.recipe, augment=None)
    differences = plain.differences(dataclasses.replace(database.recipe, augment=None))
    if differences:
        raise RecipeMismatch(
            f"{path} was made otherwise than the database ({'; '.join(differences)}): "
            "run `pipeline extract --split views --replace`"
        )
    return reader
