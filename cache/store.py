"""Feature stores (FORMAT.md): create, open, move aside and find again."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BytesCodec
from zarr.core.chunk_key_encodings import DefaultChunkKeyEncoding

from cache.create import ATTRIBUTE, FILE_BYTES, FORMAT, LEDGER, ROW_ID, adopt_rows, create, ids_per_chunk
from cache.errors import RecipeMismatch, StoreError
from cache.ledger import Ledger
from cache.metadata import REPLACE, ZARR_ERRORS, array_fault, read_json
from cache.recipe import Recipe
from cache.row_identity import RowIdentities, same_length
from cache.spec import StoreSpec
from cache.storage.folder_lock import locked
from cache.storage.paths import AnyPath, StoragePath, storage_path
from cache.storage.remote import DESCRIPTION
from cache.storage.shard_claims import require_unclaimed


@dataclass(frozen=True)
class FeatureStore:
    """An open feature store; `identity` tells whether another store has taken its path since."""

    path: StoragePath
    spec: StoreSpec
    recipe: Recipe
    ledger: Ledger
    identity: str

    @cached_property
    def group(self) -> zarr.Group:
        """The store as Zarr sees it."""
        return zarr.open_group(self.path.zarr_store(), mode="r+", zarr_format=3)

    def array(self, name: str) -> zarr.Array[Any]:
        """Return the array of that name; StoreError if there is none or its zarr.json is damaged."""
        if fault := self.array_fault(name):
            raise StoreError(
                f"{self.path / name}: {fault}; run `pipeline extract --split {self.path.stem} --repair`"
            )
        try:
            array = self.group.get(name)
        except ZARR_ERRORS as error:
            raise StoreError(f"{self.path / name} cannot be read ({error}): {REPLACE}") from error
        if not isinstance(array, zarr.Array):
            raise StoreError(f"{self.path} has no array {name!r}, only {', '.join(self.spec.outputs)}")
        return array

    def array_fault(self, name: str) -> str:
        """Return what is wrong with the zarr.json of an array of the store, "" if nothing is."""
        if name in self.spec.outputs:
            shape = (self.spec.rows, self.spec.outputs[name])
            chunk = [self.spec.chunk_rows, shape[1]]
            return array_fault(self.path / name, shape, self.spec.dtype, "NaN", chunk)
        dtype = {ROW_ID: "uint64", FILE_BYTES: "int64"}.get(name)
        if dtype is None:
            return ""
        return array_fault(self.path / name, (self.spec.rows,), dtype, 0, [ids_per_chunk(self.spec.rows)])

    @cached_property
    def plain_outputs(self) -> frozenset[str]:
        """Outputs whose chunk files can be read and written without Zarr."""
        return frozenset(name for name in self.spec.outputs if _is_plain(self.array(name)))

    def chunk_file(self, name: str, chunk: int) -> StoragePath:
        """Return the path of one chunk of an array."""
        return self.path / name / "c" / str(chunk) / "0"

    def row_ids(self, rows: slice = slice(None)) -> npt.NDArray[np.uint64]:
        """Return the identities of the rows: (n,) uint64."""
        try:
            ids = np.asarray(self.array(ROW_ID)[rows], dtype=np.uint64)
        except ZARR_ERRORS as error:
            ids, reason = np.zeros(1, np.uint64), str(error)
        else:
            reason = "a chunk is missing"
        if not ids.all():  # Zarr reads a missing chunk as zeros, which no name has as its id
            raise StoreError(
                f"{self.path / ROW_ID} is damaged ({reason}): put it back from a copy of the store, "
                f"or {REPLACE}"
            )
        return ids

    def file_bytes(self, rows: slice = slice(None)) -> npt.NDArray[np.int64] | None:
        """Return the lengths of the rows' image files, (n,), 0 where unknown; None if all are unknown."""
        if not (self.path / FILE_BYTES / DESCRIPTION).exists():
            return None
        return np.asarray(self.array(FILE_BYTES)[rows], dtype=np.int64)

    @property
    def made_for(self) -> str:
        """Digest of the rows that the store was made for; "" in stores of earlier versions."""
        note: Any = self.array(ROW_ID).attrs.get(ATTRIBUTE, {})
        return str(note.get("made_for", "")) if isinstance(note, dict) else ""

    def is_for(self, rows: RowIdentities) -> bool:
        """Whether the store's rows are these; arrays are compared only if the digests differ."""
        if self.made_for == rows.digest:
            return True
        ids, file_bytes = rows.arrays
        if not np.array_equal(self.row_ids(), ids):
            return False
        return bool(same_length(self.file_bytes(), file_bytes, len(ids)).all())

    def replaced(self) -> bool:
        """Whether another store has taken this one's path since it was opened."""
        return _identity(self.path) != self.identity


def create_or_open(
    path: AnyPath,
    spec: StoreSpec,
    recipe: Recipe,
    rows: RowIdentities,
    *,
    replace: bool = False,
    keep: bool = False,
) -> FeatureStore:
    """Return the store at `path`, created if it does not exist.

    A store of the same recipe for other rows (the manifest or the view plan changed) is moved
    aside to ``<name>.old``, where `reusable` finds it, and a new one is created. Safe to call from
    several processes at once.

    Parameters
    ----------
    path : str, Path or StoragePath
        The store's folder, ``<split>.zarr``.
    spec, recipe
        Its shape, and the settings that make its features.
    rows : RowIdentities
        Identities of its rows, in order.
    replace : bool
        Create a new store, then delete the one at `path` and those moved aside.
    keep : bool
        Move a store of another recipe aside to ``<name>.<recipe id>`` instead of rejecting it, and
        bring back the store that this recipe left there, if any.

    Raises
    ------
    RecipeMismatch
        If the store at `path` was made with another recipe.
    StoreError
        If `path` is not a feature store, if another run writes to a store that would have to be
        moved or deleted, or if the disk is full.
    """
    path = storage_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        path.remove_leftovers()
        if replace:
            require_unclaimed(path)
            create(path, spec, recipe, rows, make_room=lambda: _delete_all(path))
            return open_store(path)
        if keep:
            _swap_recipes(path, recipe)
        if store_exists(path):
            store = open_store(path)
            _require_recipe(store, recipe)
            if store.spec == spec and store.is_for(rows):
                if store.made_for != rows.digest:
                    with contextlib.suppress(OSError):  # a store on a read-only disk serves as well
                        adopt_rows(path, store.group, rows)
                return store
            require_unclaimed(path)
            path.rename_store(_free_name(path))
        create(path, spec, recipe, rows)
        return open_store(path)


def open_store(path: AnyPath) -> FeatureStore:
    """Return the store at `path`; StoreError if there is none or it is of another format."""
    path = storage_path(path)
    if not path.has_store():
        raise StoreError(f"no feature store at {path}: run `pipeline extract` to create it")
    identity, document = _identity(path), read_json(path / DESCRIPTION, REPLACE)
    attributes: Any = document.get("attributes")
    values = attributes.get(ATTRIBUTE) if isinstance(attributes, dict) else None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        other = values.get("format") if isinstance(values, dict) else "none"
        raise StoreError(f"{path} is of format {other}, this version reads {FORMAT}: {REPLACE}")
    try:
        recipe = Recipe.from_dict(values["recipe"])
        spec = StoreSpec(values["rows"], dict(recipe.outputs), recipe.dtype, values["chunk_rows"])
        numbers = (spec.rows, spec.chunk_rows, *spec.outputs.values())
        sound = all(type(number) is int for number in numbers) and document.get("node_type") == "group"
        if not sound or values["recipe_id"] != recipe.id:
            raise ValueError("its values differ from those that were written")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{path / DESCRIPTION} is damaged ({error}): put it back from a copy of the store, or {REPLACE}"
        ) from error
    return FeatureStore(path, spec, recipe, Ledger(path / LEDGER, spec), identity)


def store_exists(path: AnyPath) -> bool:
    """Whether there is a store at `path`, sound or not."""
    return storage_path(path).has_store()


def reusable(path: AnyPath, recipe: Recipe) -> list[FeatureStore]:
    """Return the stores of this recipe that were moved aside to make room at `path`, newest first."""
    asides = sorted(filter(store_exists, _asides(path)), key=_number, reverse=True)
    return [store for store in map(open_store, asides) if store.recipe.id == recipe.id]


def drop_reusable(path: AnyPath) -> None:
    """Delete the stores that were moved aside to make room at `path`."""
    for aside in _asides(path):
        aside.delete_store()


def _delete_all(path: StoragePath) -> None:
    """Delete the store at `path` and those moved aside."""
    drop_reusable(path)
    path.delete_store()


def _require_recipe(store: FeatureStore, recipe: Recipe) -> None:
    differences = recipe.differences(store.recipe)
    if differences:
        raise RecipeMismatch(
            f"{store.path} was made with another recipe ({'; '.join(differences)}): restore these settings "
            "in params.yaml, or run `pipeline extract` with --keep, which moves its features aside, or "
            "--replace, which deletes them"
        )


def _swap_recipes(path: StoragePath, recipe: Recipe) -> None:
    """Move a store of another recipe aside under that recipe's id, and this recipe's store to `path`."""
    if store_exists(path):
        other = open_store(path).recipe
        if other.id == recipe.id:
            return
        require_unclaimed(path)
        path.rename_store(f"{path.name}.{other.id}")
    kept = path.with_name(f"{path.name}.{recipe.id}")
    if store_exists(kept):
        kept.rename_store(path.name)


def _identity(path: StoragePath) -> str:
    """Return the identity of the store at `path`; empty if there is none."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return (path / DESCRIPTION).identity()
    return ""


def _asides(path: AnyPath) -> list[StoragePath]:
    path = storage_path(path)
    return list(path.parent.glob(f"{path.name}.old*"))


def _free_name(path: StoragePath) -> str:
    """Return a free name beside `path`; interrupted runs can leave several stores aside."""
    taken = [_number(aside) for aside in _asides(path)]
    return f"{path.name}.old{max(taken) + 1 if taken else ''}"


def _number(aside: StoragePath) -> int:
    return int(aside.name.rpartition(".old")[2] or 1)


def _is_plain(array: Any) -> bool:
    """Whether an array's chunks are files of uncompressed values in this machine's byte order."""
    codecs, keys = array.metadata.codecs, array.metadata.chunk_key_encoding
    if keys != DefaultChunkKeyEncoding(separator="/"):
        return False
    if len(codecs) != 1 or not isinstance(codecs[0], BytesCodec) or codecs[0].endian is None:
        return False
    # An enumeration up to Zarr 3.3, a string since.
    return getattr(codecs[0].endian, "value", codecs[0].endian) == sys.byteorder
