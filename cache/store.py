"""Feature stores on disk (FORMAT.md): created whole, opened with care, never mixed up."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BytesCodec
from zarr.core.chunk_key_encodings import DefaultChunkKeyEncoding

from cache.create import ATTRIBUTE, FORMAT, LEDGER, ROW_ID, create
from cache.errors import RecipeMismatch, StoreError
from cache.ledger import Ledger
from cache.recipe import Recipe
from cache.spec import StoreSpec
from cache.storage.folder_lock import locked
from cache.storage.lifecycle import (
    DESCRIPTION,
    drop,
    move,
    remove_leftovers,
    store_exists,
    store_identity,
    zarr_place,
)
from cache.storage.paths import StoragePath
from cache.storage.shard_claims import require_unclaimed

_ID_BLOCK = 1 << 16


@dataclass(frozen=True)
class FeatureStore:
    """An open feature store.

    Attributes
    ----------
    path : Path or RemotePath
        Its folder, ``<split>.zarr``.
    group : zarr.Group
        The open group.
    spec : StoreSpec
        How it is cut.
    recipe : Recipe
        What makes its features.
    ledger : Ledger
        What of it is done.
    identity : str
        Identity of the store, to notice that it was replaced since.
    """

    path: StoragePath
    group: zarr.Group
    spec: StoreSpec
    recipe: Recipe
    ledger: Ledger
    identity: str

    def array(self, name: str) -> zarr.Array[Any]:
        """Return the array of that name.

        Raises
        ------
        StoreError
            If there is none.
        """
        array = self.group.get(name)
        if not isinstance(array, zarr.Array):
            raise StoreError(f"{self.path} has no array {name!r}, only {', '.join(self.spec.outputs)}")
        return array

    def chunk_file(self, name: str, chunk: int) -> StoragePath:
        """Return where one chunk of an array lies."""
        return self.path / name / "c" / str(chunk) / "0"

    def row_ids(self, rows: slice = slice(None)) -> npt.NDArray[np.uint64]:
        """Identities of the rows: (n,) uint64."""
        return np.asarray(self.array(ROW_ID)[rows], dtype=np.uint64)

    def replaced(self) -> bool:
        """Whether another store has taken this one's place since it was opened."""
        return store_identity(self.path) != self.identity


def row_ids(names: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Identity of each row: the first 64 bits of the BLAKE2b of its name.

    Parameters
    ----------
    names : iterable of str
        The image's key, or ``key#view`` for a view.

    Returns
    -------
    ndarray of uint64
    """
    begun = hashlib.blake2b(digest_size=8)  # a copy of a begun digest takes half as long as a new one

    def digest(name: str) -> bytes:
        one = begun.copy()
        one.update(name.encode())
        return one.digest()

    rest, blocks = iter(names), []
    while block := b"".join(map(digest, islice(rest, _ID_BLOCK))):  # millions of them apart weigh gigabytes
        blocks.append(block)
    return np.frombuffer(b"".join(blocks), dtype="<u8").astype(np.uint64)


def create_or_open(
    path: StoragePath,
    spec: StoreSpec,
    recipe: Recipe,
    row_ids: npt.NDArray[np.uint64],
    *,
    replace: bool = False,
    keep: bool = False,
) -> FeatureStore:
    """Return the store at `path`, made if it is not there yet.

    A store of the same recipe for other rows (the manifest or the view plan changed) is moved
    aside to ``<name>.old`` and a new one begun; `reusable` finds it again. Safe to call from
    several processes at once.

    Parameters
    ----------
    path : Path or RemotePath
        The store's folder.
    spec : StoreSpec
        How it must be cut.
    recipe : Recipe
        What must have made it.
    row_ids : ndarray of uint64, (rows,)
        Identities of its rows, in order.
    replace : bool
        Drop whatever is there and begin anew.
    keep : bool
        Put a store of another recipe aside instead of refusing, as ``<name>.<recipe id>``, and go
        on with the one that this recipe left there, if any.

    Raises
    ------
    RecipeMismatch
        If the store there was made by another recipe.
    StoreError
        If what is there is no feature store, if another run writes to a store that would have to
        make room, or if the disk is full.
    """
    if row_ids.shape != (spec.rows,):
        raise StoreError(f"{row_ids.shape[0]} row identities for {spec.rows} rows")
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        remove_leftovers(path)
        if replace:
            require_unclaimed(path)
            drop_reusable(path)
            drop(path)
        if keep:
            _bring_forward(path, recipe)
        if store_exists(path):
            store = open_store(path)
            _require_recipe(store, recipe)
            if store.spec == spec and np.array_equal(store.row_ids(), row_ids):
                return store
            require_unclaimed(path)
            move(path, _aside(path))
        create(path, spec, recipe, row_ids)
        return open_store(path)


def open_store(path: StoragePath) -> FeatureStore:
    """Return the store at `path`.

    Raises
    ------
    StoreError
        If there is none, or it is of another format.
    """
    identity = store_identity(path)
    if not identity:
        raise StoreError(f"no feature store at {path}: run `pipeline extract` to make it")
    try:
        group = zarr.open_group(zarr_place(path), mode="r+", zarr_format=3)
        values: Any = group.attrs.asdict().get(ATTRIBUTE)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # no JSON, or not Zarr's
        raise StoreError(
            f"{path / DESCRIPTION} is damaged ({error}): put it back from a copy of the store, "
            "or run `pipeline extract --replace` to compute the features anew"
        ) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else "none"
        raise StoreError(
            f"{path} is of format {found}, this version reads {FORMAT}: "
            "run `pipeline extract --replace` to make it anew"
        )
    spec = StoreSpec(
        values["rows"], dict(values["recipe"]["outputs"]), values["recipe"]["dtype"], values["chunk_rows"]
    )
    return FeatureStore(
        path, group, spec, Recipe.from_dict(values["recipe"]), Ledger(path / LEDGER, spec), identity
    )


def reusable(path: StoragePath, recipe: Recipe) -> list[FeatureStore]:
    """Return the stores of this recipe moved aside in favour of the one at `path`, newest first."""
    found = [aside for aside in path.parent.glob(f"{path.name}.old*") if store_exists(aside)]
    asides = sorted(found, key=_number, reverse=True)
    return [store for store in map(open_store, asides) if store.recipe.id == recipe.id]


def drop_reusable(path: StoragePath) -> None:
    """Delete the stores that were moved aside in favour of the one at `path`."""
    for aside in path.parent.glob(f"{path.name}.old*"):
        drop(aside)


def _require_recipe(store: FeatureStore, recipe: Recipe) -> None:
    differences = recipe.differences(store.recipe)
    if differences:
        raise RecipeMismatch(
            f"{store.path} was made by another recipe ({'; '.join(differences)}): restore these settings in "
            "params.yaml, or run `pipeline extract` with --keep, which puts its features aside, or "
            "--replace, which drops them"
        )


def _bring_forward(path: StoragePath, recipe: Recipe) -> None:
    """Put a store of another recipe aside under that recipe's id, and this recipe's in its place."""
    if store_exists(path):
        present = open_store(path).recipe
        if present.id == recipe.id:
            return
        require_unclaimed(path)
        move(path, path.with_name(f"{path.name}.{present.id}"))
    waiting = path.with_name(f"{path.name}.{recipe.id}")
    if store_exists(waiting):
        move(waiting, path)


def _aside(path: StoragePath) -> StoragePath:
    """Return a free name beside `path`: several stores wait there if a run was cut short more than once."""
    taken = [_number(aside) for aside in path.parent.glob(f"{path.name}.old*")]
    return path.with_name(f"{path.name}.old{max(taken) + 1 if taken else ''}")


def _number(aside: StoragePath) -> int:
    return int(aside.name.rpartition(".old")[2] or 1)


def is_plain(array: Any) -> bool:
    """Whether an array's chunks are files of uncompressed values in this machine's byte order."""
    codecs, keys = array.metadata.codecs, array.metadata.chunk_key_encoding
    if keys != DefaultChunkKeyEncoding(separator="/"):
        return False
    if len(codecs) != 1 or not isinstance(codecs[0], BytesCodec) or codecs[0].endian is None:
        return False
    # An enumeration up to Zarr 3.3, a word since.
    return getattr(codecs[0].endian, "value", codecs[0].endian) == sys.byteorder
