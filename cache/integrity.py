"""What is wrong with a store: torn files at a glance, changed bytes by reading every one."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from cache.errors import StoreError
from cache.ledger import Entry
from cache.storage.paths import file_sizes
from cache.store import FeatureStore


@dataclass(frozen=True)
class ChunkFault:
    """One thing that is wrong with a finished chunk.

    Attributes
    ----------
    chunk : int
        Number of the chunk.
    output : str
        The array it is in; "ledger" for the chunk's entry.
    what : str
        What is wrong.
    """

    chunk: int
    output: str
    what: str


def torn(store: FeatureStore, chunks: Iterable[int]) -> Iterator[ChunkFault]:
    """Yield the faults of finished chunks that show without reading a feature.

    Those are what a power cut leaves: entries that are no JSON, chunk files that are missing, empty
    or short. Chunks without an entry are not finished, which is no fault.
    """
    chunks = list(chunks)
    listed = set(store.ledger.listed()).intersection(chunks)
    whole = {entry.chunk for entry in store.ledger.entries(sorted(listed))}
    lengths = {name: _lengths(store, name, sorted(whole)) for name in store.spec.outputs}
    for chunk in chunks:
        if chunk in listed - whole:
            yield ChunkFault(chunk, "ledger", "entry is damaged")
        elif chunk in whole:
            for output in store.spec.outputs:
                yield from _short(store, chunk, output, lengths[output].get(chunk))


def check_chunk(store: FeatureStore, chunk: int) -> list[ChunkFault]:
    """Return all faults of one chunk, found by reading its files past Zarr; none if it is not finished."""
    for entry in store.ledger.entries([chunk]):
        return [fault for output in store.spec.outputs for fault in _changed(store, entry, output)]
    return [ChunkFault(chunk, "ledger", "entry is damaged")] if chunk in store.ledger.listed() else []


def repair(store: FeatureStore, faults: Iterable[ChunkFault]) -> list[int]:
    """Declare the faulty chunks unfinished, so that the next run computes them; return their numbers."""
    chunks = sorted({fault.chunk for fault in faults})
    for chunk in chunks:
        store.ledger.reopen(chunk)
    return chunks


def require_sound(store: FeatureStore, chunk: int) -> None:
    """Check a finished chunk before its features are used to write it again.

    Raises
    ------
    StoreError
        If it is damaged: a new checksum would hide that for good.
    """
    faults = check_chunk(store, chunk)
    if faults:
        raise StoreError(
            f"chunk {chunk} of {store.path} is damaged ({faults[0].output}: {faults[0].what}): "
            f"run `pipeline extract --split {store.path.stem} --repair`"
        )


def _lengths(store: FeatureStore, output: str, chunks: Iterable[int]) -> dict[int, int]:
    """Lengths in bytes of the chunk files that are there, by chunk."""
    named = {f"{chunk}/0": chunk for chunk in chunks}
    found = file_sizes(store.path / output / "c", list(named))
    return {named[name]: size for name, size in found.items()}


def _short(store: FeatureStore, chunk: int, output: str, found: int | None) -> Iterator[ChunkFault]:
    """Yield the fault of a chunk file of `found` bytes, None if it is missing."""
    length = store.spec.chunk_rows * store.spec.outputs[output] * np.dtype(store.spec.dtype).itemsize
    if found is None:
        yield ChunkFault(chunk, output, "file is missing")
    elif found != length:
        yield ChunkFault(chunk, output, f"file has {found:,} of {length:,} bytes")


def _changed(store: FeatureStore, entry: Entry, output: str) -> Iterator[ChunkFault]:
    """Yield what the bytes of one chunk file tell."""
    try:
        content = store.chunk_file(output, entry.chunk).read_bytes()
    except FileNotFoundError:
        content = None
    short = list(_short(store, entry.chunk, output, None if content is None else len(content)))
    if short or content is None:
        yield from short
        return
    dtype = np.dtype(store.spec.dtype).newbyteorder("<")
    features = np.frombuffer(content, dtype).reshape(store.spec.chunk_rows, store.spec.outputs[output])
    rows = entry.rows.stop - entry.rows.start
    real, padding = features[:rows], features[rows:]
    if zlib.crc32(real.data) != entry.crc32[output]:
        yield ChunkFault(entry.chunk, output, "bytes changed since they were written")
        return
    odd = np.flatnonzero(~np.isfinite(real).all(axis=1)) + entry.rows.start
    odd = np.setdiff1d(odd, [bad.row for bad in entry.bad])
    if len(odd):
        yield ChunkFault(entry.chunk, output, f"row {odd[0]} is not finite and not listed as bad")
    if not np.isnan(padding).all():
        yield ChunkFault(entry.chunk, output, "bytes changed past the last row")
