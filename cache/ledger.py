"""What of a store is done, missing or bad: one small JSON file per finished chunk."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import StoreError
from cache.spec import StoreSpec
from cache.storage.paths import StoragePath, read_each, sync, write_atomic


@dataclass(frozen=True)
class BadRow:
    """A row that could not be computed: its number, its key and why."""

    row: int
    key: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """What the ledger says of one finished chunk.

    Attributes
    ----------
    chunk : int
        Number of the chunk.
    rows : slice
        Its rows.
    crc32 : dict of str to int
        Checksum of the real rows' bytes, per array.
    bad : tuple of BadRow
        Rows that hold NaN, in order.
    """

    chunk: int
    rows: slice
    crc32: dict[str, int]
    bad: tuple[BadRow, ...]


class Ledger:
    """The finished chunks of a store.

    Entries are files of their own, so that any number of writers may add to the ledger without
    sharing a file. Their content depends on the features alone: no times, no host names.

    Parameters
    ----------
    folder : Path or RemotePath
        Where the entries lie.
    spec : StoreSpec
        The store's cut.
    """

    def __init__(self, folder: StoragePath, spec: StoreSpec) -> None:
        self.folder = folder
        self.spec = spec

    def mark(self, chunk: int, crc32: Mapping[str, int], bad: tuple[BadRow, ...]) -> None:
        """Declare a chunk finished. Call it after the chunk's arrays are on the disk."""
        rows = self.spec.chunk_slice(chunk)
        entry = {
            "chunk": chunk,
            "rows": [rows.start, rows.stop],
            "crc32": {name: crc32[name] for name in self.spec.outputs},
            "bad": [{"row": item.row, "key": item.key, "reason": item.reason} for item in bad],
        }
        text = json.dumps(entry, indent=1, ensure_ascii=False) + "\n"
        path = self._path(chunk)
        if self.folder.is_dir():  # object storage has none, nor partial files
            for partial in self.folder.glob(f".{path.name}.*"):  # left by a writer that was killed
                partial.unlink(missing_ok=True)
        write_atomic(path, text.encode())

    def reopen(self, chunk: int) -> None:
        """Declare a chunk unfinished again, so that the next run computes it."""
        path = self._path(chunk)
        if path.exists():
            path.unlink(missing_ok=True)
            sync(self.folder)

    def done(self, chunk: int) -> bool:
        """Whether a chunk is finished: its entry is there and whole."""
        return next(self.entries([chunk]), None) is not None

    def done_chunks(self) -> npt.NDArray[np.int64]:
        """Numbers of the finished chunks, ascending."""
        return np.array([entry.chunk for entry in self.entries()], dtype=np.int64)

    def listed(self) -> list[int]:
        """Numbers of the chunks that have an entry, whole or torn, ascending."""
        names = (path.name.removesuffix(".json") for path in self.folder.glob("[0-9]*.json"))
        return sorted(int(name) for name in names if name.isdigit() and int(name) < self.spec.chunks)

    def missing(self) -> npt.NDArray[np.int64]:
        """Numbers of the chunks that are not finished, ascending."""
        return np.setdiff1d(np.arange(self.spec.chunks, dtype=np.int64), self.done_chunks())

    def entry(self, chunk: int) -> Entry:
        """Return what is known of a finished chunk.

        Raises
        ------
        StoreError
            If the chunk is not finished or its entry is damaged.
        """
        path = self._path(chunk)
        try:
            return self._parsed(chunk, path.read_bytes())
        except FileNotFoundError:
            raise StoreError(f"chunk {chunk} is not finished: no {path}; run `pipeline extract`") from None

    def entries(self, chunks: Iterable[int] | None = None) -> Iterator[Entry]:
        """Yield what is known of every finished chunk, or of those named; a damaged entry is no entry."""
        named = {self._path(chunk).name: chunk for chunk in (self.listed() if chunks is None else chunks)}
        for name, content in read_each(self.folder, list(named)):
            with contextlib.suppress(StoreError):
                yield self._parsed(named[name], content)

    def _parsed(self, chunk: int, content: bytes) -> Entry:
        """Return what an entry's file says, once it is known to be whole and about this chunk."""
        path = self._path(chunk)
        try:
            values: dict[str, Any] = json.loads(content)
            rows = slice(*values["rows"])
            bad = tuple(BadRow(**item) for item in values["bad"])
            entry = Entry(values["chunk"], rows, dict(values["crc32"]), bad)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{path} is damaged ({error}): run `pipeline extract` to write its chunk again"
            ) from error
        if entry.chunk != chunk or rows != self.spec.chunk_slice(chunk) or set(entry.crc32) != self._outputs:
            raise StoreError(
                f"{path} speaks of chunk {entry.chunk}, rows {rows.start} to {rows.stop}: "
                "run `pipeline extract` to write its chunk again"
            )
        return entry

    def bad_rows(self) -> list[BadRow]:
        """Rows that could not be computed, in order."""
        return [bad for entry in self.entries() for bad in entry.bad]

    def valid_mask(self) -> npt.NDArray[np.bool_]:
        """Whether each row holds a feature: (rows,), False for bad rows and unfinished chunks."""
        valid = np.zeros(self.spec.rows, dtype=np.bool_)
        for entry in self.entries():
            valid[entry.rows] = True
            valid[[bad.row for bad in entry.bad]] = False
        return valid

    @property
    def _outputs(self) -> set[str]:
        return set(self.spec.outputs)

    def _path(self, chunk: int) -> StoragePath:
        return self.folder / f"{chunk:06d}.json"
