"""Faults of a store: torn files, found by their length, and changed bytes, found by reading everything."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.create import LEDGER, ROW_ID, descriptions
from cache.errors import StoreError
from cache.ledger import Entry
from cache.metadata import read_json
from cache.storage.paths import LocalPath
from cache.storage.remote import DESCRIPTION
from cache.store import FeatureStore


@dataclass(frozen=True)
class ChunkFault:
    """A fault of a finished chunk: in which array (or "ledger", for its entry), and what is wrong."""

    chunk: int
    output: str
    what: str


@dataclass(frozen=True)
class MetadataFault:
    """A fault of the files that describe a store; a repairable one needs no features to be computed."""

    name: str
    what: str
    repairable: bool


def torn(store: FeatureStore, chunks: Iterable[int]) -> Iterator[ChunkFault]:
    """Yield the faults of finished chunks that can be found without reading features.

    Those are the faults that a power cut leaves: entries that are not JSON, chunk files that are
    missing, empty or short. A chunk without an entry is unfinished, which is not a fault.
    """
    chunks = list(chunks)
    listed = set(store.ledger.listed()).intersection(chunks)
    readable = {entry.chunk for entry in store.ledger.entries(sorted(listed))}
    sizes = {output: _chunk_sizes(store, output, sorted(readable)) for output in store.spec.outputs}
    for chunk in chunks:
        if chunk in listed - readable:
            yield ChunkFault(chunk, "ledger", "entry is damaged")
        elif chunk in readable:
            for output in store.spec.outputs:
                yield from _size_fault(store, chunk, output, sizes[output].get(chunk))


def check_chunk(store: FeatureStore, chunk: int) -> list[ChunkFault]:
    """Return all faults of one chunk, found by reading its files without Zarr; none if it is unfinished."""
    for entry in store.ledger.entries([chunk]):
        return [fault for output in store.spec.outputs for fault in _content_faults(store, entry, output)]
    return [ChunkFault(chunk, "ledger", "entry is damaged")] if chunk in store.ledger.listed() else []


def metadata_faults(store: FeatureStore) -> list[MetadataFault]:
    """Return the faults of the files that describe a store's arrays and of its row ids."""
    faults = [
        MetadataFault(name, what, repairable=True)
        for name in (*store.spec.outputs, ROW_ID)
        if (what := store.array_fault(name))
    ]
    if not faults and (what := _row_id_fault(store)):
        faults.append(MetadataFault(ROW_ID, what, repairable=False))
    try:
        sound = read_json(store.path / LEDGER / DESCRIPTION, "").get("node_type") == "group"
    except StoreError:
        sound = False
    return faults if sound else [*faults, MetadataFault(LEDGER, "zarr.json is missing or damaged", True)]


def repair_metadata(store: FeatureStore) -> list[str]:
    """Write damaged zarr.json files again and return the names of their arrays; the features are kept."""
    faults = [fault for fault in metadata_faults(store) if fault.repairable]
    documents = descriptions(store.spec, store.recipe) if faults else {}
    for fault in faults:
        file = store.path / fault.name / DESCRIPTION
        if isinstance(file, LocalPath):
            file.parent.mkdir(exist_ok=True)
        file.write_atomic(documents[fault.name])
    return [fault.name for fault in faults]


def _row_id_fault(store: FeatureStore) -> str:
    """Return what is wrong with the row ids, "" if nothing is."""
    try:
        store.row_ids()
    except StoreError as error:
        return str(error)
    return ""


def repair(store: FeatureStore, faults: Iterable[ChunkFault]) -> list[int]:
    """Mark the faulty chunks unfinished, so that the next run computes them; return their numbers."""
    chunks = sorted({fault.chunk for fault in faults})
    for chunk in chunks:
        store.ledger.reopen(chunk)
    return chunks


def require_checksum(
    store: FeatureStore, entry: Entry, output: str, features: npt.NDArray[np.floating]
) -> None:
    """Compare a chunk's rows, in the store's dtype, with their checksum; StoreError if they changed."""
    if zlib.crc32(np.ascontiguousarray(features).view(np.uint8).data) != entry.crc32[output]:
        raise StoreError(
            f"chunk {entry.chunk} of {store.path} is damaged ({output}: bytes changed since they were "
            f"written): run `pipeline extract --split {store.path.stem} --repair`"
        )


def require_sound(store: FeatureStore, chunk: int) -> None:
    """Check a finished chunk before its features are used to write it again; StoreError if it is damaged."""
    # A new checksum of damaged features would hide the damage for good.
    faults = check_chunk(store, chunk)
    if faults:
        raise StoreError(
            f"chunk {chunk} of {store.path} is damaged ({faults[0].output}: {faults[0].what}): "
            f"run `pipeline extract --split {store.path.stem} --repair`"
        )


def _chunk_sizes(store: FeatureStore, output: str, chunks: Iterable[int]) -> dict[int, int]:
    """Bytes of the chunk files that exist, by chunk."""
    chunk_of_name = {f"{chunk}/0": chunk for chunk in chunks}
    sizes = (store.path / output / "c").sizes(list(chunk_of_name))
    return {chunk_of_name[name]: size for name, size in sizes.items()}


def _size_fault(store: FeatureStore, chunk: int, output: str, size: int | None) -> Iterator[ChunkFault]:
    """Yield the fault of a chunk file of `size` bytes, None if it is missing."""
    expected = store.spec.chunk_rows * store.spec.outputs[output] * np.dtype(store.spec.dtype).itemsize
    if size is None:
        yield ChunkFault(chunk, output, "file is missing")
    elif size != expected:
        yield ChunkFault(chunk, output, f"file has {size:,} of {expected:,} bytes")


def _content_faults(store: FeatureStore, entry: Entry, output: str) -> Iterator[ChunkFault]:
    """Yield the faults of one chunk file, from its bytes."""
    try:
        content = store.chunk_file(output, entry.chunk).read_bytes()
    except FileNotFoundError:
        content = None
    faults = list(_size_fault(store, entry.chunk, output, None if content is None else len(content)))
    if faults or content is None:
        yield from faults
        return
    dtype = np.dtype(store.spec.dtype).newbyteorder("<")
    features = np.frombuffer(content, dtype).reshape(store.spec.chunk_rows, store.spec.outputs[output])
    rows = entry.rows.stop - entry.rows.start
    real, padding = features[:rows], features[rows:]
    if zlib.crc32(real.data) != entry.crc32[output]:
        yield ChunkFault(entry.chunk, output, "bytes changed since they were written")
        return
    not_finite = np.flatnonzero(~np.isfinite(real).all(axis=1)) + entry.rows.start
    unlisted = np.setdiff1d(not_finite, [bad.row for bad in entry.bad])
    if len(unlisted):
        yield ChunkFault(entry.chunk, output, f"row {unlisted[0]} is not finite and not listed as bad")
    if not np.isnan(padding).all():
        yield ChunkFault(entry.chunk, output, "bytes changed past the last row")
