"""Create an empty store: metadata, row ids and an empty ledger, visible only once it is complete."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import zarr

from cache.errors import StoreError
from cache.recipe import Recipe
from cache.spec import StoreSpec
from cache.storage.paths import StoragePath

FORMAT = 1
ROW_ID = "row_id"
LEDGER = "ledger"
ATTRIBUTE = "placecache"
_IDS_PER_CHUNK = 1 << 20


def create(path: StoragePath, spec: StoreSpec, recipe: Recipe, row_ids: npt.NDArray[np.uint64]) -> None:
    """Create an empty store at `path`, where no store may be; StoreError if the disk is full or fails."""
    try:
        with path.build_store() as new:
            _build(new, spec, recipe, row_ids)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be created: {error.strerror or error}; fix that (free some space?) "
            "and run the same command again"
        ) from error


def _build(new: Path, spec: StoreSpec, recipe: Recipe, row_ids: npt.NDArray[np.uint64]) -> None:
    values = {
        "format": FORMAT,
        "rows": spec.rows,
        "chunk_rows": spec.chunk_rows,
        "recipe_id": recipe.id,
        "recipe": recipe.to_dict(),
    }
    group = zarr.create_group(new, zarr_format=3, attributes={ATTRIBUTE: values})
    for name, length in spec.outputs.items():
        group.create_array(
            name,
            shape=(spec.rows, length),
            chunks=(spec.chunk_rows, length),
            dtype=spec.dtype,
            compressors=None,
            filters=None,
            fill_value=float("nan"),
            config={"write_empty_chunks": True},
        )
    ids = group.create_array(
        ROW_ID,
        shape=(spec.rows,),
        chunks=(max(1, min(spec.rows, _IDS_PER_CHUNK)),),
        dtype="uint64",
        compressors=None,
        filters=None,
        config={"write_empty_chunks": True},
    )
    ids[:] = row_ids
    group.create_group(LEDGER)
