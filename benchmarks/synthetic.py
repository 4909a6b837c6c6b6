"""What several benchmarks work on: feature stores and class tables of any size."""

from __future__ import annotations

import numpy as np
from measure import ROOT  # noqa: F401  (makes the project importable)

from cache.reader import FeatureReader
from cache.recipe import Recipe
from cache.row_identity import RowIdentities
from cache.spec import StoreSpec
from cache.store import create_or_open
from cache.writer import ChunkWriter
from stages.partition.classes import ClassTable
from stages.partition.grid import centres, group_of

CELL_M = 10.0


def recipe_of(outputs):
    return Recipe("benchmark", "random", "0" * 64, 224, {}, outputs, "float16", "float32")


def empty_store(path, rows, outputs, chunk_rows=None):
    """Return a new store of float16 rows; by default its chunks are as `pipeline extract` makes them."""
    spec = StoreSpec.for_rows(rows, outputs, "float16")
    if chunk_rows:
        spec = StoreSpec(rows, outputs, "float16", chunk_rows)
    identities = RowIdentities.of(np.arange(rows, dtype=np.uint64))
    return create_or_open(path, spec, recipe_of(outputs), identities)


def filled_store(path, rows, outputs, features_of, chunk_rows=None):
    """Return the reader of a new store with one output; `features_of` a slice gives its rows."""
    store = empty_store(path, rows, outputs, chunk_rows)
    writer, (output,) = ChunkWriter(store), outputs
    for chunk in range(store.spec.chunks):
        writer.write(chunk, {output: features_of(store.spec.chunk_slice(chunk))})
    return FeatureReader.open(path)


def square_of_classes(count, groups_per_side):
    """Return a table of about `count` cells in a square, so that every cell has neighbours."""
    side = int(count**0.5) // groups_per_side * groups_per_side
    cell = np.stack(np.divmod(np.arange(side * side), side), axis=1).astype(np.int64) + 50_000
    group = group_of(cell, groups_per_side)
    order = np.lexsort((cell[:, 1], cell[:, 0], group))
    cell, group = cell[order], group[order]
    number = len(cell)
    return ClassTable(
        group=group.astype(np.int32),
        index=(np.arange(number) - np.searchsorted(group, group)).astype(np.int32),
        p=cell[:, 0],
        q=cell[:, 1],
        centres=centres(cell, CELL_M),
        images=np.full(number, 9),
        bucket=np.full(number, "mid"),
        p_aug=np.zeros(number, np.float32),
        cell_m=CELL_M,
        groups_per_side=groups_per_side,
        zone="10S",
    )
