"""Rows that have been through the backbone before: found by identity, copied instead of computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.reader import FeatureReader
from cache.storage.paths import StoragePath
from cache.store import FeatureStore


@dataclass(frozen=True)
class ReusedRows:
    """Where rows of a store are to be copied from.

    Attributes
    ----------
    stores : tuple of StoragePath
        Stores that were moved aside.
    rows : ndarray, (n,) int64, ascending
        Rows of the new store.
    source : ndarray, (n,) int64
        Which of `stores` each comes from.
    source_row : ndarray, (n,) int64
        Which row of it.
    """

    stores: tuple[StoragePath, ...]
    rows: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]
    source_row: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ReusableStore:
    """A store that was moved aside, indexed by the identity of its valid rows.

    Attributes
    ----------
    path : StoragePath
        The store.
    identities : ndarray of uint64, ascending
        Identities of its valid rows.
    rows : ndarray of int64
        The row of each.
    """

    path: StoragePath
    identities: npt.NDArray[np.uint64]
    rows: npt.NDArray[np.int64]

    @classmethod
    def of(cls, store: FeatureStore) -> ReusableStore:
        """Return the index of a store."""
        rows = np.flatnonzero(store.ledger.valid_mask())
        identities = store.row_ids()[rows]
        order = np.argsort(identities, kind="stable")
        return cls(store.path, identities[order], rows[order])

    def locate(
        self, identities: npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Return whether the store holds each identity, and in which row."""
        if not len(self.rows):
            return np.zeros(len(identities), np.bool_), np.zeros(len(identities), np.int64)
        place = np.minimum(np.searchsorted(self.identities, identities), len(self.rows) - 1)
        return self.identities[place] == identities, self.rows[place]


def find_carried(
    store: FeatureStore, asides: Sequence[ReusableStore], todo: Mapping[int, npt.NDArray[np.int64]]
) -> ReusedRows:
    """Return which of the rows to do lie in stores that were moved aside, and are valid there."""
    wanted = np.concatenate([*todo.values(), np.empty(0, np.int64)]).astype(np.int64)
    source = np.full(len(wanted), -1, dtype=np.int64)
    source_row = np.zeros(len(wanted), dtype=np.int64)
    if asides and len(wanted):
        low, high = int(wanted[0]), int(wanted[-1]) + 1
        identities = store.row_ids(slice(low, high))[wanted - low]
        for number, aside in enumerate(asides):
            found, rows = aside.locate(identities)
            fresh = found & (source < 0)
            source[fresh], source_row[fresh] = number, rows[fresh]
    kept = source >= 0
    return ReusedRows(tuple(aside.path for aside in asides), wanted[kept], source[kept], source_row[kept])


def copy_rows(
    carried: ReusedRows, rows: slice, features: Mapping[str, npt.NDArray[np.floating]]
) -> npt.NDArray[np.int64]:
    """Fill the carried rows of one chunk, reading contiguous slices of the old stores.

    Parameters
    ----------
    carried : ReusedRows
        Where rows come from.
    rows : slice
        The chunk's rows.
    features : mapping of str to ndarray, (n, F)
        The chunk's arrays, filled in place.

    Returns
    -------
    ndarray of int64
        Store rows that were copied.
    """
    low, high = np.searchsorted(carried.rows, [rows.start, rows.stop])
    for number, path in enumerate(carried.stores):
        chosen = np.flatnonzero(carried.source[low:high] == number) + low
        if not len(chosen):
            continue
        reader = FeatureReader.open(path)
        old_chunk = carried.source_row[chosen] // reader.chunk_rows
        for chunk in np.unique(old_chunk):
            part = chosen[old_chunk == chunk]
            old = carried.source_row[part]
            start = int(old.min())
            for name, array in features.items():
                block = reader.read(start, int(old.max()) + 1, [name])
                array[carried.rows[part] - rows.start] = block[old - start]
    return carried.rows[low:high]
