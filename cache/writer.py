"""Chunks into a store: first the arrays, then the ledger; safe to repeat, safe to kill."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cache.errors import StoreError
from cache.ledger import BadRow
from cache.storage.paths import sync, write_atomic
from cache.store import FeatureStore, is_plain


class ChunkWriter:
    """Writes whole chunks of a store.

    Two writers may work on one store as long as they write different chunks. A chunk's ledger
    entry is written after its arrays are on the disk, so a killed writer loses at most the chunk
    in its hands, and writing it again gives the same bytes. What a power cut may undo, FORMAT.md
    tells.

    Parameters
    ----------
    store : FeatureStore
        Where to write.
    """

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self._plain = {name for name in store.spec.outputs if is_plain(store.array(name))}

    def write(
        self,
        chunk: int,
        arrays: Mapping[str, npt.NDArray[np.floating]],
        bad: Mapping[int, str] | None = None,
        *,
        keys: Mapping[int, str] | None = None,
    ) -> None:
        """Write one chunk of every array, then mark it done.

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
        ready = {name: self._ready(name, arrays, rows, bad) for name in self.store.spec.outputs}
        listed = tuple(BadRow(row, (keys or {}).get(row, ""), reason) for row, reason in bad.items())
        self._require_place()
        try:
            self.store.ledger.reopen(chunk)  # a second version is not done until it is whole
            checksums = {}
            for name, features in ready.items():
                self._write_array(name, chunk, rows, features)
                checksums[name] = zlib.crc32(features.data)
            self._require_place()
            self.store.ledger.mark(chunk, checksums, listed)
        except OSError as error:
            raise StoreError(
                f"chunk {chunk} of {self.store.path} cannot be written: {error.strerror or error}; mend that "
                "(free some space?) and run the same command again, finished chunks are kept"
            ) from error

    def _ready(
        self, name: str, arrays: Mapping[str, npt.NDArray[np.floating]], rows: slice, bad: Mapping[int, str]
    ) -> npt.NDArray[np.floating]:
        """Return the features as they will lie on the disk, checked."""
        expected = (rows.stop - rows.start, self.store.spec.outputs[name])
        if name not in arrays or arrays[name].shape != expected:
            found = arrays[name].shape if name in arrays else "nothing"
            raise StoreError(
                f"rows {rows.start} to {rows.stop} of {name!r} need features {expected}, given {found}"
            )
        with np.errstate(over="ignore"):
            features = np.array(arrays[name], dtype=self.store.spec.dtype, order="C")
        for row in bad:
            if not rows.start <= row < rows.stop:
                raise StoreError(f"bad row {row} lies outside the chunk's rows {rows.start} to {rows.stop}")
            features[row - rows.start] = np.nan
        odd = np.flatnonzero(_odd_rows(features)) + rows.start
        odd = odd[~np.isin(odd, list(bad))]
        if len(odd):
            raise StoreError(
                f"row {odd[0]} of {name!r} is not finite as {self.store.spec.dtype} and not listed as bad: "
                "list it, or set extract.dtype to float32"
            )
        return features

    def _write_array(self, name: str, chunk: int, rows: slice, features: npt.NDArray[np.floating]) -> None:
        """One chunk file, wholly there or not at all, and forced to the disk."""
        file = self.store.chunk_file(name, chunk)
        replaces = file.exists()
        if file.parent.is_dir():
            for partial in file.parent.glob("*.partial"):  # left by a writer that was killed
                partial.unlink(missing_ok=True)
        if name in self._plain:
            file.parent.mkdir(parents=True, exist_ok=True)
            short = self.store.spec.chunk_rows - len(features)
            if short:  # the file of the last chunk is as long as the others, its end filled as Zarr does
                features = np.pad(features, ((0, short), (0, 0)), constant_values=np.nan)
            write_atomic(file, features.data)
        else:
            self.store.array(name)[rows] = features
            sync(file)
        if replaces:  # an old file that came back after a power cut would look whole
            sync(file.parent)

    def _require_place(self) -> None:
        if self.store.replaced():
            raise StoreError(
                f"{self.store.path} was replaced while this run wrote to it: start the run again"
            )


def _odd_rows(features: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Return whether each row of (n, F) holds NaN or infinity: (n,).

    Told by the exponent, all of whose bits are set: NumPy's own test takes float16 one by one.
    """
    unsigned = f"u{features.itemsize}"
    exponent = np.array(np.inf, features.dtype).view(unsigned)
    odd: npt.NDArray[np.bool_] = ((features.view(unsigned) & exponent) == exponent).any(axis=1)
    return odd
