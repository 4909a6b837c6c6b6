"""Write chunks into a store: first the arrays, then the ledger entry; safe to repeat, safe to kill."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cache.errors import StoreError
from cache.ledger import BadRow
from cache.store import FeatureStore


class ChunkWriter:
    """Writes whole chunks of a store.

    Several writers can work on one store as long as they write different chunks. A chunk's ledger
    entry is written after its arrays are on the disk, so a killed writer loses at most its current
    chunk, and writing it again gives the same bytes. FORMAT.md describes what a power cut can undo.
    """

    def __init__(self, store: FeatureStore) -> None:
        self.store = store

    def write(
        self,
        chunk: int,
        arrays: Mapping[str, npt.NDArray[np.floating]],
        bad: Mapping[int, str] | None = None,
        *,
        keys: Mapping[int, str] | None = None,
    ) -> None:
        """Write one chunk of every array, then mark it finished.

        Parameters
        ----------
        chunk : int
            Number of the chunk.
        arrays : mapping of str to ndarray, (n, F)
            Features of the chunk's n rows, per output.
        bad : mapping of int to str, optional
            Store row -> why it could not be computed. Bad rows are written as NaN.
        keys : mapping of int to str, optional
            Store row -> image key, for the ledger's list of bad rows.

        Raises
        ------
        StoreError
            If arrays are missing or of the wrong shape, if a row that is not bad holds a value
            that is not finite in the store's dtype, if the store was replaced meanwhile, or if
            the disk is full or fails.
        """
        bad = dict(sorted((bad or {}).items()))
        rows = self.store.spec.chunk_slice(chunk)
        checked = {name: self._checked(name, arrays, rows, bad) for name in self.store.spec.outputs}
        bad_rows = tuple(BadRow(row, (keys or {}).get(row, ""), reason) for row, reason in bad.items())
        self._require_not_replaced()
        try:
            # A chunk that is written again is unfinished until all of it is new.
            self.store.ledger.reopen(chunk)
            checksums = {}
            for name, features in checked.items():
                self._write_array(name, chunk, rows, features)
                checksums[name] = zlib.crc32(features.data)
            self._require_not_replaced()
            self.store.ledger.mark(chunk, checksums, bad_rows)
        except OSError as error:
            raise StoreError(
                f"chunk {chunk} of {self.store.path} cannot be written: {error.strerror or error}; fix that "
                "(free some space?) and run the same command again, finished chunks are kept"
            ) from error

    def _checked(
        self, name: str, arrays: Mapping[str, npt.NDArray[np.floating]], rows: slice, bad: Mapping[int, str]
    ) -> npt.NDArray[np.floating]:
        """Return the features in the store's dtype, bad rows as NaN, after checks of shape and values."""
        expected = (rows.stop - rows.start, self.store.spec.outputs[name])
        if name not in arrays or arrays[name].shape != expected:
            given = arrays[name].shape if name in arrays else "nothing"
            raise StoreError(
                f"rows {rows.start} to {rows.stop} of {name!r} need features {expected}, given {given}"
            )
        with np.errstate(over="ignore"):
            features = np.array(arrays[name], dtype=self.store.spec.dtype, order="C")
        for row in bad:
            if not rows.start <= row < rows.stop:
                raise StoreError(f"bad row {row} lies outside the chunk's rows {rows.start} to {rows.stop}")
            features[row - rows.start] = np.nan
        not_finite = np.flatnonzero(rows_not_finite(features)) + rows.start
        unlisted = not_finite[~np.isin(not_finite, list(bad))]
        if len(unlisted):
            raise StoreError(
                f"row {unlisted[0]} of {name!r} is not finite as {self.store.spec.dtype} and not listed as "
                "bad: list it, or set extract.dtype to float32"
            )
        return features

    def _write_array(self, name: str, chunk: int, rows: slice, features: npt.NDArray[np.floating]) -> None:
        """Write one chunk file atomically and force it to the disk."""
        file = self.store.chunk_file(name, chunk)
        replaces = file.exists()
        file.remove_partials()
        if name in self.store.plain_outputs:
            short = self.store.spec.chunk_rows - len(features)
            if short:  # as Zarr does, the last chunk's file is as long as the others, padded with NaN
                features = np.pad(features, ((0, short), (0, 0)), constant_values=np.nan)
            file.write_atomic(features.data)
        else:
            self.store.array(name)[rows] = features
            file.sync()
        if replaces:  # after a power cut the old file could come back, and its length would look right
            file.parent.sync()

    def _require_not_replaced(self) -> None:
        if self.store.replaced():
            raise StoreError(
                f"{self.store.path} was replaced while this run wrote to it: start the run again"
            )


def rows_not_finite(features: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Return whether each row of (n, F) holds NaN or infinity: (n,)."""
    # All bits of the exponent are set then. np.isfinite converts float16 values one by one.
    unsigned = f"u{features.itemsize}"
    exponent = np.array(np.inf, features.dtype).view(unsigned)
    rows: npt.NDArray[np.bool_] = ((features.view(unsigned) & exponent) == exponent).any(axis=1)
    return rows
