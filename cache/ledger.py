"""Ledger of a store: which chunks are finished and which rows are bad, one small JSON file per chunk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import StoreError
from cache.spec import StoreSpec
from cache.storage.paths import StoragePath


@dataclass(frozen=True)
class BadRow:
    """A row that could not be computed: its number, its image key and the reason."""

    row: int
    key: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """A finished chunk: its rows, the CRC-32 of the real rows' bytes per array, its bad rows in order."""

    chunk: int
    rows: slice
    crc32: dict[str, int]
    bad: tuple[BadRow, ...]


class Ledger:
    """The finished chunks of a store.

    Every entry is a file, so that any number of writers can add entries without sharing a file.
    The content of an entry depends on the features alone: no times, no host names.
    """

    def __init__(self, folder: StoragePath, spec: StoreSpec) -> None:
        self.folder = folder
        self.spec = spec

    def mark(self, chunk: int, crc32: Mapping[str, int], bad: tuple[BadRow, ...]) -> None:
        """Mark a chunk finished. Call it after the chunk's arrays are on the disk."""
        rows = self.spec.chunk_slice(chunk)
        entry = {
            "chunk": chunk,
            "rows": [rows.start, rows.stop],
            "crc32": {name: crc32[name] for name in self.spec.outputs},
            "bad": [{"row": item.row, "key": item.key, "reason": item.reason} for item in bad],
        }
        text = json.dumps({**entry, "checksum": _checksum(entry)}, indent=1, ensure_ascii=False) + "\n"
        path = self._path(chunk)
        path.remove_partials()
        path.write_atomic(text.encode())

    def reopen(self, chunk: int) -> None:
        """Mark a chunk unfinished again, so that the next run computes it."""
        path = self._path(chunk)
        if path.exists():
            path.unlink(missing_ok=True)
            self.folder.sync()

    def done(self, chunk: int) -> bool:
        """Whether a chunk is finished: its entry exists and is readable."""
        return next(self.entries([chunk]), None) is not None

    def done_chunks(self) -> npt.NDArray[np.int64]:
        """Numbers of the finished chunks, ascending."""
        return np.array([entry.chunk for entry in self.entries()], dtype=np.int64)

    def listed(self) -> list[int]:
        """Numbers of the chunks that have an entry, readable or damaged, ascending."""
        names = (path.name.removesuffix(".json") for path in self.folder.glob("[0-9]*.json"))
        return sorted(int(name) for name in names if name.isdigit() and int(name) < self.spec.chunks)

    def missing(self) -> npt.NDArray[np.int64]:
        """Numbers of the chunks that are not finished, ascending."""
        return np.setdiff1d(np.arange(self.spec.chunks, dtype=np.int64), self.done_chunks())

    def entry(self, chunk: int) -> Entry:
        """Return the entry of a chunk; StoreError if the chunk is not finished or its entry is damaged."""
        path = self._path(chunk)
        try:
            return self._parse(chunk, path.read_bytes())
        except FileNotFoundError:
            raise StoreError(f"chunk {chunk} is not finished: no {path}; run `pipeline extract`") from None

    def entries(self, chunks: Iterable[int] | None = None) -> Iterator[Entry]:
        """Yield the entries of all chunks (or of those given), without missing and damaged ones."""
        chunk_of_name = {
            self._path(chunk).name: chunk for chunk in (self.listed() if chunks is None else chunks)
        }
        for name, content in self.folder.read_each(list(chunk_of_name)):
            with contextlib.suppress(StoreError):
                yield self._parse(chunk_of_name[name], content)

    def digest(self) -> str:
        """Return a SHA-256 of all entries: it changes with every feature and every bad row."""
        digest = hashlib.sha256()
        for entry in self.entries():
            digest.update(json.dumps([entry.chunk, entry.crc32, [bad.row for bad in entry.bad]]).encode())
        return digest.hexdigest()

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

    def _parse(self, chunk: int, content: bytes) -> Entry:
        """Return the entry that a file holds, once it is known to be complete and about this chunk."""
        path = self._path(chunk)
        try:
            values: dict[str, Any] = json.loads(content)
            if values.pop("checksum", None) not in (None, _checksum(values)):  # entries had none at first
                raise ValueError("its checksum differs")
            rows = slice(*values["rows"])
            bad = tuple(BadRow(**item) for item in values["bad"])
            entry = Entry(values["chunk"], rows, dict(values["crc32"]), bad)
            _require_values(entry)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(
                f"{path} is damaged ({error}): run `pipeline extract` to write its chunk again"
            ) from error
        expected = self.spec.chunk_slice(chunk)
        if entry.chunk != chunk or rows != expected or set(entry.crc32) != set(self.spec.outputs):
            raise StoreError(
                f"{path} describes chunk {entry.chunk}, rows {rows.start} to {rows.stop}; expected chunk "
                f"{chunk}, rows {expected.start} to {expected.stop}, with checksums of "
                f"{', '.join(self.spec.outputs)}: run `pipeline extract` to write its chunk again"
            )
        return entry

    def _path(self, chunk: int) -> StoragePath:
        return self.folder / f"{chunk:06d}.json"


def _require_values(entry: Entry) -> None:
    """Raise ValueError unless the values of an entry have the right types and ranges."""
    numbers = [entry.chunk, entry.rows.start, entry.rows.stop, *entry.crc32.values()]
    bad_rows = [item.row for item in entry.bad]
    if any(type(number) is not int or not 0 <= number < 1 << 63 for number in (*numbers, *bad_rows)):
        raise ValueError("a number is none, or out of range")
    if any(crc >= 1 << 32 for crc in entry.crc32.values()):
        raise ValueError("a checksum is out of range")
    if bad_rows != sorted(set(bad_rows)) or not all(
        entry.rows.start <= row < entry.rows.stop for row in bad_rows
    ):
        raise ValueError("its bad rows are out of order or of another chunk")
    if any(type(text) is not str for item in entry.bad for text in (item.key, item.reason)):
        raise ValueError("a key or reason is no text")


def _checksum(values: Mapping[str, Any]) -> int:
    """CRC-32 of an entry's values."""
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())
