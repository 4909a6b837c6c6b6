"""The features that training reads, resident in memory as they are stored (float16)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.errors import RecipeMismatch, StoreError
from cache.reader import FeatureReader
from stages.classes import ViewPlan
from stages.errors import ConfigError
from stages.train.samplers import Batch


@dataclass(frozen=True)
class TrainingSet:
    """The images that may be trained on, and their views.

    Attributes
    ----------
    features : Tensor
        Of the images, shape (n, F), in the store's dtype.
    classes : ndarray of int64, shape (n,)
        Class id of each image.
    views : Tensor
        Features of the views, shape (V, F).
    view_images : ndarray of int64, shape (V,)
        Image that each view belongs to, ascending.
    """

    features: Tensor
    classes: npt.NDArray[np.int64]
    views: Tensor
    view_images: npt.NDArray[np.int64]

    def of(self, batch: Batch, device: torch.device) -> Tensor:
        """Features of a batch on the device, images first, then views: (B + A, F) float32."""
        parts = [_rows(self.features, batch.images, device)]
        if len(batch.views):
            parts.append(_rows(self.views, batch.views, device))
        return torch.cat(parts).float()


def _rows(features: Tensor, rows: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    index = torch.from_numpy(rows).to(features.device, non_blocking=True)
    return features.index_select(0, index).to(device, non_blocking=True)


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
    reader: FeatureReader, wanted: npt.NDArray[np.bool_], inputs: tuple[str, ...], device: torch.device
) -> Tensor:
    """Return features of the rows marked in `wanted`, shape (n, F), read chunk by chunk.

    Raises
    ------
    StoreError
        If the device has no memory for them.
    """
    dtype = getattr(torch, reader.recipe.dtype)
    shape = (int(wanted.sum()), reader.length(inputs))
    try:
        features = torch.empty(shape, dtype=dtype, device=device)
    except (MemoryError, RuntimeError) as error:
        gigabytes = shape[0] * shape[1] * dtype.itemsize / 1e9
        raise StoreError(
            f"{gigabytes:.1f} GB of features do not fit into the memory of {device}: set train.residency "
            "to host, or train.inputs to fewer outputs"
        ) from error
    filled = 0
    for start, stop in reader.blocks():
        keep = wanted[start:stop]
        count = int(keep.sum())
        if count:
            block = reader.read(start, stop, inputs)
            features[filled : filled + count] = torch.from_numpy(block[keep]).to(device)
            filled += count
    return features


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


def place_of_rows(rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the number of each marked row among the marked ones, -1 elsewhere, shape (rows,)."""
    return np.where(rows, np.cumsum(rows) - 1, -1)


def load_views(
    reader: FeatureReader,
    plan: ViewPlan,
    trained: npt.NDArray[np.bool_],
    inputs: tuple[str, ...],
    device: torch.device,
) -> tuple[Tensor, npt.NDArray[Any]]:
    """Return features of the sound views of the images trained on, and the image of each.

    Parameters
    ----------
    reader : FeatureReader
        Store of the views.
    plan : ViewPlan
        Which image each of its rows shows.
    trained : ndarray of bool, shape (rows,)
        Manifest rows that are trained on.
    inputs : tuple of str
        Outputs to join.
    device : torch.device
        Where to put them.
    """
    wanted = reader.valid & trained[plan.row]
    return load_rows(reader, wanted, inputs, device), place_of_rows(trained)[plan.row[wanted]]
