"""Reading rows of a feature store into memory, and checking that they are finite."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.errors import RecipeMismatch, StoreError
from cache.integrity import require_checksum
from cache.reader import FeatureReader
from cache.storage.paths import StoragePath
from cache.store import store_exists
from stages.errors import ConfigError
from stages.extract.row_identity import require_same_rows
from stages.index.manifest import Manifest
from stages.models.backbones.spec import pooled_among
from stages.models.heads.margin_loss import Buffers
from stages.partition.views import ViewPlan
from stages.train.config import TrainConfig

Rows = tuple[int, int]
"""First row of a range and the row after its last."""
Checked = set[tuple[str, int]]
"""Chunks whose checksums were compared, by number, and blocks known to be finite, by first row."""
_CHECKED_SHARE = 1 / 8
"""If fewer rows of a chunk are wanted, comparing its checksum would read much more than training does."""
_READERS = 2
"""Threads that read: while one waits for the disk, the other checks and copies."""


def chosen_inputs(config: TrainConfig, reader: FeatureReader) -> tuple[str, ...]:
    """Return the pooled outputs that are joined into a feature.

    Raises
    ------
    ConfigError
        If the store lacks one of them.
    """
    offered = pooled_among(reader.outputs)
    if isinstance(config.inputs, str):
        return offered
    missing = [name for name in config.inputs if name not in offered]
    if missing:
        raise ConfigError(
            f"train.inputs names {', '.join(missing)}, but {reader.store.path} holds "
            f"{', '.join(offered)}: choose among these, or add it to extract.outputs"
        )
    return config.inputs


def load_rows(
    reader: FeatureReader,
    wanted: npt.NDArray[np.bool_],
    inputs: tuple[str, ...],
    place: torch.device,
    ranges: Sequence[Rows] | None = None,
    buffers: Buffers | None = None,
    checked: Checked | None = None,
) -> Tensor:
    """Return features (n, F) of the rows marked in `wanted`, read chunk by chunk onto a device.

    Parameters
    ----------
    reader, wanted, inputs, place
        Store, mask of its rows, outputs to join, device.
    ranges : sequence of (start, stop), optional
        Read only these ranges of rows, in this order.
    buffers : Buffers, optional
        Memory to read into; it overwrites the last features read into it.
    checked : Checked, optional
        Blocks and chunks known to be sound, which are not checked again; those read now are added.

    Raises
    ------
    StoreError
        If they do not fit in memory, or one of them is not finite.
    """
    blocks = [block for span in ranges or [(0, reader.rows)] for block in reader.blocks(*span)]
    counts = [int(wanted[start:stop].sum()) for start, stop in blocks]
    ends = np.cumsum([0, *counts])
    dtype = getattr(torch, reader.recipe.dtype)
    shape = (int(ends[-1]), reader.length(inputs))
    try:
        memory, empty = buffers or Buffers(), torch.empty(0, device=place)
        features = memory.take(str(reader.store.path), shape, empty, dtype)
    except (MemoryError, RuntimeError) as error:
        gigabytes = shape[0] * shape[1] * dtype.itemsize / 1e9
        raise StoreError(
            f"{gigabytes:.1f} GB of features do not fit into the memory of {place}: set train.residency "
            "to auto, host or stream, or train.inputs to fewer outputs"
        ) from error

    checked = set() if checked is None else checked

    def fill(number: int) -> None:
        (start, stop), target = blocks[number], features[ends[number] : ends[number + 1]]
        if not len(target):
            return
        staged = (target if target.is_cpu else torch.empty(target.shape, dtype=dtype)).numpy()
        chunk = ("chunk", start // reader.chunk_rows)
        if chunk not in checked and len(target) >= _CHECKED_SHARE * (stop - start):
            _require_checksums(reader, inputs, chunk[1])
            checked.add(chunk)
        _copy_rows(staged, reader, inputs, start, wanted[start:stop])
        if ("block", start) not in checked:
            _require_finite(staged, reader, start)
            checked.add(("block", start))
        if not target.is_cpu:
            target.copy_(torch.from_numpy(staged))

    with ThreadPoolExecutor(_READERS) as pool:
        for _ in pool.map(fill, range(len(blocks))):  # raises the first error of a reader
            pass
    return features


def _copy_rows(
    target: npt.NDArray[np.floating],
    reader: FeatureReader,
    inputs: tuple[str, ...],
    start: int,
    wanted: npt.NDArray[np.bool_],
) -> None:
    """Fill the target with the wanted rows of the block at `start`, which lies within one chunk."""
    chunk, first = divmod(start, reader.chunk_rows)
    rows = slice(first, first + len(wanted)) if wanted.all() else first + np.flatnonzero(wanted)
    column = 0
    for name in inputs:
        length = reader.outputs[name]
        target[:, column : column + length] = reader.mapped(name, chunk)[rows]
        column += length


def _require_checksums(reader: FeatureReader, inputs: tuple[str, ...], chunk: int) -> None:
    """Compare a chunk with its checksums, while its bytes are read anyway; StoreError if they changed."""
    if chunk not in reader.entries:
        return
    for name in inputs:
        require_checksum(reader.store, reader.entries[chunk], name, reader.mapped(name, chunk))


def _require_finite(features: npt.NDArray[np.floating], reader: FeatureReader, start: int) -> None:
    if features.dtype == np.float16:
        # Read as integers, infinity and NaN are the largest numbers of either sign: 20 times faster than
        # isfinite.
        positive, negative = features.view(np.int16), features.view(np.uint16)
        finite = bool(positive.max() < 0x7C00 and negative.max() < 0xFC00)
    else:
        finite = bool(np.isfinite(features).all())
    if not finite:
        raise StoreError(
            f"{reader.store.path} holds a feature that is not finite in the chunk of row {start}, "
            "although its ledger does not list it as bad: run `pipeline extract --replace`"
        )


def open_views(
    path: StoragePath | None, plan: ViewPlan, database: FeatureReader, manifest: Manifest
) -> FeatureReader:
    """Open the store of the planned views.

    Raises
    ------
    StoreError
        If it does not exist or is incomplete.
    InputError
        If it holds other views than planned.
    RecipeMismatch
        If another backbone made it.
    """
    if path is None or not store_exists(path):
        raise StoreError(
            f"{len(plan)} views are planned but {path or 'their store'} does not exist: run "
            "`pipeline extract --split views`, or set train.augment_views to false"
        )
    reader = FeatureReader.open(path)
    require_same_rows(reader.store, manifest, plan)
    reader.require_complete()
    plain = dataclasses.replace(reader.recipe, augment=None)
    differences = plain.differences(dataclasses.replace(database.recipe, augment=None))
    if differences:
        raise RecipeMismatch(
            f"{path} was made with other settings than the database ({'; '.join(differences)}): "
            "run `pipeline extract --split views --replace`"
        )
    return reader
