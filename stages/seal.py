"""What is known of a manifest only when all of its rows have passed by."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.index.hashing import Hashes, key_hashes


class ManifestDigest:
    """The digest of a manifest and its duplicate keys; holds 8 bytes a row."""

    def __init__(self) -> None:
        self._sums = [hashlib.sha256() for _ in range(3)]
        self._hashes: list[Hashes] = []

    def add(self, batches: list[pa.RecordBatch]) -> None:
        """Take the next rows."""
        for batch in batches:
            hashes = key_hashes(batch["key"])
            self._hashes.append(hashes)
            columns = (hashes, batch["utm_east"].to_numpy(), batch["utm_north"].to_numpy())
            for total, column in zip(self._sums, columns, strict=True):
                total.update(column.data)

    def digest(self) -> str:
        """Return a sha256 of all keys and positions, the same however the rows were cut into batches."""
        return hashlib.sha256(b"".join(total.digest() for total in self._sums)).hexdigest()

    def duplicates(self) -> npt.NDArray[np.int64]:
        """Return the rows whose key an earlier row has."""
        hashes = np.concatenate(self._hashes)
        self._hashes.clear()
        ordered = np.sort(hashes)
        repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        if not len(repeated):
            return np.zeros(0, np.int64)
        rows = np.flatnonzero(np.isin(hashes, repeated))
        _, first = np.unique(hashes[rows], return_index=True)
        return np.delete(rows, first)
