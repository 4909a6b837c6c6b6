"""Create an empty store: metadata, row ids and an empty ledger, visible only once it is complete."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import zarr

from cache.errors import StoreError
from cache.recipe import Recipe
from cache.row_identity import RowIdentities
from cache.spec import StoreSpec
from cache.storage.paths import StoragePath
from cache.storage.remote import DESCRIPTION

FORMAT = 1
ROW_ID = "row_id"
FILE_BYTES = "file_bytes"
ROW_DIMENSION = "row"
LEDGER = "ledger"
ATTRIBUTE = "placecache"
_IDS_PER_CHUNK = 1 << 20


def create(
    path: StoragePath,
    spec: StoreSpec,
    recipe: Recipe,
    rows: RowIdentities,
    make_room: Callable[[], None] = lambda: None,
) -> None:
    """Create an empty store at `path`; StoreError if the disk is full or fails.

    `make_room` is called when the new store is complete elsewhere; then no store may be at `path`.
    """
    if rows.arrays.ids.shape != (spec.rows,):
        raise StoreError(f"{len(rows.arrays.ids)} row identities for {spec.rows} rows")
    try:
        with path.build_store() as new:
            _build(new, spec, recipe, rows)
            make_room()
    except OSError as error:
        raise StoreError(
            f"{path} cannot be created: {error.strerror or error}; fix that (free some space?) "
            "and run the same command again"
        ) from error


def adopt_rows(path: StoragePath, group: zarr.Group, rows: RowIdentities) -> None:
    """Note in a store that it is for these rows, which were found to be its own.

    Such a store was made by an earlier version, or for an equal list without file lengths.
    """
    if rows.arrays.file_bytes is not None:
        _write_rows(group, FILE_BYTES, rows.arrays.file_bytes)
    # Not the group's own zarr.json: writers take another file in its place for another store.
    file = path / ROW_ID / DESCRIPTION
    values: dict[str, Any] = json.loads(file.read_bytes())
    values["attributes"] = {**values.get("attributes", {}), **_made_for(rows)}
    file.write_atomic(json.dumps(values, indent=2).encode())


def descriptions(spec: StoreSpec, recipe: Recipe) -> dict[str, bytes]:
    """Return the content of zarr.json of the outputs, the row ids and the ledger, by name."""
    files: dict[str, Any] = {}
    _create_rows(_describe(zarr.storage.MemoryStore(files), spec, recipe), ROW_ID, spec.rows, "uint64", {})
    suffix = f"/{DESCRIPTION}"
    return {
        path.removesuffix(suffix): file.to_bytes() for path, file in files.items() if path.endswith(suffix)
    }


def _build(new: Path, spec: StoreSpec, recipe: Recipe, rows: RowIdentities) -> None:
    group = _describe(new, spec, recipe)
    _write_rows(group, ROW_ID, rows.arrays.ids, _made_for(rows))
    if rows.arrays.file_bytes is not None:
        _write_rows(group, FILE_BYTES, rows.arrays.file_bytes)


def _describe(new: Any, spec: StoreSpec, recipe: Recipe) -> zarr.Group:
    """Write a store's metadata: of the group, its outputs and the ledger."""
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
            dimension_names=(ROW_DIMENSION, f"{name}_component"),
            compressors=None,
            filters=None,
            fill_value=float("nan"),
            config={"write_empty_chunks": True},
        )
    group.create_group(LEDGER)
    return group


def _made_for(rows: RowIdentities) -> dict[str, Any]:
    return {ATTRIBUTE: {"made_for": rows.digest}}


def _write_rows(
    group: zarr.Group, name: str, values: npt.NDArray[Any], attributes: dict[str, Any] | None = None
) -> None:
    """Write an array with one value per row."""
    _create_rows(group, name, len(values), str(values.dtype), attributes or {})[:] = values


def ids_per_chunk(rows: int) -> int:
    """Rows in a chunk of an array with one value per row."""
    return max(1, min(rows, _IDS_PER_CHUNK))


def _create_rows(group: zarr.Group, name: str, rows: int, dtype: str, attributes: dict[str, Any]) -> Any:
    """Write the metadata of an array with one value per row."""
    return group.create_array(
        name,
        shape=(rows,),
        chunks=(ids_per_chunk(rows),),
        dtype=dtype,
        dimension_names=(ROW_DIMENSION,),
        compressors=None,
        filters=None,
        config={"write_empty_chunks": True},
        attributes=attributes,
        overwrite=True,
    )
