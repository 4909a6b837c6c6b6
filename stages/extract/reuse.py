"""Rows computed before: found in older stores by identity, and copied instead of computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.reader import FeatureReader
from cache.row_identity import same_length
from cache.storage.paths import StoragePath
from cache.store import FeatureStore


@dataclass(frozen=True)
class ReusedRows:
    """Rows of a new store (n, ascending), and the row `source_row` of `stores[source]` that each copies."""

    stores: tuple[StoragePath, ...]
    rows: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]
    source_row: npt.NDArray[np.int64]

    def within(self, rows: slice) -> slice:
        """Return which of them lie in a range of rows."""
        low, high = np.searchsorted(self.rows, [rows.start, rows.stop])
        return slice(int(low), int(high))

    def count(self, rows: slice) -> int:
        """Return how many of them lie in a range of rows."""
        span = self.within(rows)
        return int(span.stop - span.start)


@dataclass(frozen=True)
class ReusableStore:
    """A store that was moved aside: its valid rows by ascending identity, with file lengths."""

    path: StoragePath
    identities: npt.NDArray[np.uint64]
    rows: npt.NDArray[np.int64]
    file_bytes: npt.NDArray[np.int64] | None

    @classmethod
    def of(cls, store: FeatureStore) -> ReusableStore:
        """Return the index of a store."""
        rows = np.flatnonzero(store.ledger.valid_mask())
        identities = store.row_ids()[rows]
        order = np.argsort(identities, kind="stable")
        file_bytes = store.file_bytes()
        return cls(
            store.path,
            identities[order],
            rows[order],
            None if file_bytes is None else file_bytes[rows[order]],
        )

    def locate(
        self, identities: npt.NDArray[np.uint64], file_bytes: npt.NDArray[np.int64] | None
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Return whether the store has each identity with a file of that length, and its row."""
        if not len(self.rows):
            return np.zeros(len(identities), np.bool_), np.zeros(len(identities), np.int64)
        position = np.minimum(np.searchsorted(self.identities, identities), len(self.rows) - 1)
        own = None if self.file_bytes is None else self.file_bytes[position]
        same = same_length(own, file_bytes, len(identities))
        return (self.identities[position] == identities) & same, self.rows[position]


def find_reused(
    store: FeatureStore, older: Sequence[ReusableStore], todo: Mapping[int, npt.NDArray[np.int64]]
) -> ReusedRows:
    """Return which of the rows to do, given by chunk, are valid in an older store."""
    wanted = np.concatenate([*todo.values(), np.empty(0, np.int64)]).astype(np.int64)
    source = np.full(len(wanted), -1, dtype=np.int64)
    source_row = np.zeros(len(wanted), dtype=np.int64)
    if older and len(wanted):
        low, high = int(wanted[0]), int(wanted[-1]) + 1
        identities = store.row_ids(slice(low, high))[wanted - low]
        file_bytes = store.file_bytes(slice(low, high))
        file_bytes = None if file_bytes is None else file_bytes[wanted - low]
        for number, candidate in enumerate(older):
            available, rows = candidate.locate(identities, file_bytes)
            first = available & (source < 0)  # the newest store that has a row comes first
            source[first], source_row[first] = number, rows[first]
    reused = source >= 0
    paths = tuple(candidate.path for candidate in older)
    return ReusedRows(paths, wanted[reused], source[reused], source_row[reused])


def copy_rows(reused: ReusedRows, rows: slice, features: Mapping[str, npt.NDArray[np.floating]]) -> int:
    """Fill the reused rows of one chunk in place and return how many there are.

    Parameters
    ----------
    reused : ReusedRows
        The rows to copy and their sources.
    rows : slice
        The chunk's rows.
    features : mapping of str to ndarray, (n, F)
        The chunk's arrays.
    """
    span = reused.within(rows)
    for number, path in enumerate(reused.stores):
        chosen = np.flatnonzero(reused.source[span] == number) + span.start
        if not len(chosen):
            continue
        reader = FeatureReader.open(path)
        old_chunk = reused.source_row[chosen] // reader.chunk_rows
        for chunk in np.unique(old_chunk):  # one contiguous read per chunk of the old store
            part = chosen[old_chunk == chunk]
            old = reused.source_row[part]
            start = int(old.min())
            for name, array in features.items():
                block = reader.read(start, int(old.max()) + 1, [name])
                array[reused.rows[part] - rows.start] = block[old - start]
    return reused.count(rows)
