"""Read features from a store: contiguous slices as arrays, tensors or dask arrays, or single rows."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from cache.errors import StoreError
from cache.ledger import Entry
from cache.recipe import Recipe
from cache.spec import number_ranges
from cache.storage.paths import AnyPath
from cache.store import FeatureStore, open_store

if TYPE_CHECKING:
    import torch


class FeatureReader:
    """Reads a feature store.

    It reads contiguous slices, because disks read them fast. Safe to use from several threads. The
    ledger is read once.
    """

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self._arrays: dict[str, Any] = {name: store.array(name) for name in store.spec.outputs}
        # Zarr takes several times as long on a busy machine; it reads what another program compressed.
        self._plain = store.plain_outputs

    @classmethod
    def open(cls, path: AnyPath) -> Self:
        """Return a reader of the store at `path`; StoreError if there is none or it is of another format."""
        return cls(open_store(path))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.store.spec.rows

    @property
    def recipe(self) -> Recipe:
        """The settings that made the features."""
        return self.store.recipe

    @property
    def outputs(self) -> dict[str, int]:
        """Names of the outputs, in order, and their lengths F."""
        return self.store.spec.outputs

    @property
    def chunk_rows(self) -> int:
        """Rows in a chunk; slices that start at a multiple of it are the fastest."""
        return self.store.spec.chunk_rows

    def length(self, outputs: Sequence[str] | None = None) -> int:
        """Length F of a feature that consists of these outputs (default: all)."""
        return sum(self.outputs[name] for name in self._names(outputs))

    def read(self, start: int, stop: int, outputs: Sequence[str] | None = None) -> npt.NDArray[np.floating]:
        """Return features of rows `start` to `stop`, outputs side by side.

        Parameters
        ----------
        start, stop : int
            Rows, ``0 <= start <= stop <= rows``; StoreError for others.
        outputs : sequence of str, optional
            Which outputs, in which order; by default all, in the store's order.

        Returns
        -------
        ndarray, (stop - start, F)
            In the store's dtype. Bad rows and rows that are not extracted yet are NaN.
        """
        names = self._names(outputs)
        if not 0 <= start <= stop <= self.rows:
            raise StoreError(f"rows {start} to {stop} are not a slice of the store's {self.rows} rows")
        if len(names) == 1 and start // self.chunk_rows == (stop - 1) // self.chunk_rows and start < stop:
            return self._within_chunk(names[0], start, stop)  # one chunk of one array: no copy
        features = np.empty((stop - start, self.length(names)), dtype=self.store.spec.dtype)
        for low, high in self.blocks(start, stop):
            column = 0
            for name in names:
                length = self.outputs[name]
                block = features[low - start : high - start, column : column + length]
                block[:] = self._within_chunk(name, low, high)
                column += length
        return features

    def mapped(self, output: str, chunk: int) -> npt.NDArray[np.floating]:
        """Return the rows of one output in one chunk, (n, F), read-only, mapped into memory if possible.

        For callers that copy the rows or need few of them: a mapped row is read when it is used. Rows
        that are not extracted yet are NaN.
        """
        rows = self.store.spec.chunk_slice(chunk)
        if output in self._plain:
            shape = (self.chunk_rows, self.outputs[output])
            with contextlib.suppress(FileNotFoundError, ValueError):  # not extracted yet, or cut short
                chunk_file = self.store.chunk_file(output, chunk)
                return chunk_file.map_values(self.store.spec.dtype, shape)[: rows.stop - rows.start]
        return self._within_chunk(output, rows.start, rows.stop)

    def tensor(self, start: int, stop: int, outputs: Sequence[str] | None = None) -> torch.Tensor:
        """Return features of rows `start` to `stop` as a tensor; see `read`."""
        import torch

        return torch.from_numpy(self.read(start, stop, outputs))

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield consecutive (start, stop) pairs that cover the rows, split at chunk borders."""
        stop = self.rows if stop is None else stop
        while start < stop:
            border = min((start // self.chunk_rows + 1) * self.chunk_rows, stop)
            yield start, border
            start = border

    def dask(self, output: str) -> Any:
        """Return a lazy dask array (rows, F) of one output, with the chunks of the store."""
        import dask.array

        (name,) = self._names([output])
        array = self._arrays[name]
        lazy: Any = dask.array.from_array(array, chunks=array.chunks, name=False)  # type: ignore[no-untyped-call]
        return lazy

    @cached_property
    def valid(self) -> npt.NDArray[np.bool_]:
        """Whether each row holds a feature: (rows,), False for bad rows and those not extracted yet."""
        return self.store.ledger.valid_mask()

    @cached_property
    def entries(self) -> dict[int, Entry]:
        """The ledger's entries of finished chunks, by chunk."""
        return {entry.chunk: entry for entry in self.store.ledger.entries()}

    @cached_property
    def missing_rows(self) -> int:
        """Number of rows that are not extracted yet; bad rows count as extracted."""
        slices = (self.store.spec.chunk_slice(int(chunk)) for chunk in self.store.ledger.missing())
        return sum(rows.stop - rows.start for rows in slices)

    def require_complete(self, shards: int | None = None) -> None:
        """Check that every row is extracted; otherwise a StoreError names the command that does it.

        Given the number of work shards, the command names the shards that are left.
        """
        missing = self.store.ledger.missing()
        if not len(missing):
            return
        command = f"pipeline extract --split {self.store.path.stem}"
        if shards is not None:
            left = sorted({self.store.spec.shard_of_chunk(int(chunk), shards) for chunk in missing})
            command += f" --shards {number_ranges(left)}"
        raise StoreError(f"{self.store.path} lacks {self.missing_rows} of {self.rows} rows: run `{command}`")

    def _within_chunk(self, name: str, start: int, stop: int) -> npt.NDArray[np.floating]:
        """Return rows of one array that lie in one chunk: (stop - start, F)."""
        if name in self._plain:
            chunk, first = divmod(start, self.chunk_rows)
            length, dtype = self.outputs[name], np.dtype(self.store.spec.dtype)
            count = (stop - start) * length
            with contextlib.suppress(FileNotFoundError):  # not extracted yet: Zarr gives NaN
                values = self.store.chunk_file(name, chunk).read_values(dtype, count, first * length)
                if len(values) == count:
                    return values.reshape(-1, length)
        return np.asarray(self._arrays[name][start:stop])

    def _names(self, outputs: Sequence[str] | None) -> list[str]:
        names = list(self.outputs) if outputs is None else list(outputs)
        unknown = [name for name in names if name not in self.outputs]
        if unknown or not names:
            raise StoreError(
                f"{self.store.path} holds {', '.join(self.outputs)}, not {', '.join(unknown) or 'nothing'}: "
                "choose among them, or add the output to extract.outputs and run `pipeline extract --replace`"
            )
        return names


def gather(
    reader: FeatureReader, rows: npt.NDArray[np.int64], outputs: Sequence[str] | None = None
) -> npt.NDArray[np.floating]:
    """Return features of single rows, outputs side by side.

    Only the pages that hold these rows are read from the disk. On object storage, and in a store that
    another program compressed or sharded, whole chunks are read instead.

    Parameters
    ----------
    reader, outputs
        As in `FeatureReader.read`.
    rows : ndarray of int64, shape (n,)
        Rows, ascending.

    Returns
    -------
    ndarray, (n, F)
        In the store's dtype; NaN for bad rows.
    """
    names = list(reader.outputs) if outputs is None else list(outputs)
    features = np.empty((len(rows), reader.length(names)), reader.store.spec.dtype)
    chunks = rows // reader.chunk_rows
    starts = np.flatnonzero(np.diff(chunks, prepend=-1))
    for low, high in itertools.pairwise(np.append(starts, len(rows))):
        chunk, column = int(chunks[low]), 0
        offsets = rows[low:high] - chunk * reader.chunk_rows
        for name in names:
            block = reader.mapped(name, chunk)
            features[low:high, column : column + block.shape[1]] = block[offsets]
            column += block.shape[1]
    return features
