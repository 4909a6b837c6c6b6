"""What is wrong with a store: torn files at a glance, changed bytes by reading every one."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.errors import StoreError
from cache.ledger import Entry
from cache.store import FeatureStore


@dataclass(frozen=True)
class Fault:
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


def torn(store: FeatureStore, chunks: Iterable[int]) -> Iterator[Fault]:
    """Yield the faults of finished chunks that show without reading a feature.

    Those are what a power cut leaves: entries that are no JSON, chunk files that are missing, empty
    or short. Chunks without an entry are not finished, which is no fault.
    """
    listed = set(store.ledger.listed())
    for chunk in chunks:
        if chunk not in listed:
            continue
        if not store.ledger.done(chunk):
            yield Fault(chunk, "ledger", "entry is damaged")
            continue
        for output in store.spec.outputs:
            fault = _torn_file(store, chunk, output)
            if fault is not None:
                yield fault


def check_chunk(store: FeatureStore, chunk: int) -> list[Fault]:
    """Return all faults of one chunk, found by reading its files past Zarr; none if it is not finished."""
    faults = list(torn(store, [chunk]))
    if faults or not store.ledger.done(chunk):
        return faults
    entry = store.ledger.entry(chunk)
    return [fault for output in store.spec.outputs for fault in _changed(store, entry, output)]


def repair(store: FeatureStore, faults: Iterable[Fault]) -> list[int]:
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


def _torn_file(store: FeatureStore, chunk: int, output: str) -> Fault | None:
    expected = _chunk_bytes(store, output)
    try:
        found = store.chunk_file(output, chunk).stat().st_size
    except FileNotFoundError:
        return Fault(chunk, output, "file is missing")
    if found != expected:
        return Fault(chunk, output, f"file has {found:,} of {expected:,} bytes")
    return None


def _changed(store: FeatureStore, entry: Entry, output: str) -> Iterator[Fault]:
    """Yield what the bytes of one chunk file tell; its length is right."""
    features = _read(store.chunk_file(output, entry.chunk), store, output)
    rows = entry.rows.stop - entry.rows.start
    real, padding = features[:rows], features[rows:]
    if zlib.crc32(real.tobytes()) != entry.crc32[output]:
        yield Fault(entry.chunk, output, "bytes changed since they were written")
        return
    odd = np.flatnonzero(~np.isfinite(real).all(axis=1)) + entry.rows.start
    odd = np.setdiff1d(odd, [bad.row for bad in entry.bad])
    if len(odd):
        yield Fault(entry.chunk, output, f"row {odd[0]} is not finite and not listed as bad")
    if not np.isnan(padding).all():
        yield Fault(entry.chunk, output, "bytes changed past the last row")


def _read(path: Path, store: FeatureStore, output: str) -> npt.NDArray[np.floating]:
    dtype = np.dtype(store.spec.dtype).newbyteorder("<")
    return np.fromfile(path, dtype=dtype).reshape(store.spec.chunk_rows, store.spec.outputs[output])


def _chunk_bytes(store: FeatureStore, output: str) -> int:
    return store.spec.chunk_rows * store.spec.outputs[output] * np.dtype(store.spec.dtype).itemsize
