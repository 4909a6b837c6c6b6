"""A chunk in memory: started with the rows that are known, filled batch by batch, then written."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cache.integrity import require_sound
from cache.ledger import BadRow
from cache.reader import FeatureReader
from cache.store import FeatureStore
from cache.timings import log_timing
from cache.writer import ChunkWriter
from stages.extract.batch import ImageBatch
from stages.extract.plan import ShardOrder
from stages.extract.result import ShardResult
from stages.extract.reuse import copy_rows


class RoundedFeatures(NamedTuple):
    """One output of a batch in the store's dtype (B, F), and which rows are finite (B,)."""

    values: Tensor
    finite: Tensor


@dataclass
class Chunk:
    """A chunk in memory; `bad` holds row -> reason and `names` row -> name of the rows tried."""

    number: int
    rows: slice
    features: dict[str, npt.NDArray[np.floating]]
    timing: dict[str, float]
    bad: dict[int, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    computed: int = 0
    reused: int = 0


def start_chunk(order: ShardOrder, store: FeatureStore, number: int) -> Chunk:
    """Return a chunk with the rows that are known: its own valid rows if it is retried, and reused rows."""
    rows = store.spec.chunk_slice(number)
    if number in order.retries and store.ledger.done(number):
        require_sound(store, number)  # rewriting a damaged chunk would give it a valid checksum
        reader = FeatureReader(store)
        features = {name: reader.read(rows.start, rows.stop, [name]) for name in store.spec.outputs}
    else:
        length = rows.stop - rows.start
        features = {
            name: np.full((length, width), np.nan, dtype=store.spec.dtype)
            for name, width in store.spec.outputs.items()
        }
    timing = dict.fromkeys(("read_s", "compute_s", "read_wait_s", "write_wait_s"), 0.0)
    chunk = Chunk(number, rows, features, timing)
    chunk.reused = copy_rows(order.reused, rows, features)
    return chunk


def add_features(chunk: Chunk, batch: ImageBatch, features: Mapping[str, RoundedFeatures]) -> None:
    """Add a batch's features to its chunk; rows that overflowed become bad, unreadable ones are left out."""
    if not features:
        return
    rows = np.array([image.row for image in batch.images])
    readable = ~np.isin(rows, list(batch.reasons))
    for name, (values, finite) in features.items():
        array = chunk.features[name]
        for row in rows[readable & ~finite.numpy()]:
            chunk.bad[int(row)] = f"feature {name} is not finite as {array.dtype}"
        array[rows[readable] - chunk.rows.start] = values.numpy()[readable]
    chunk.computed += len(rows) - sum(int(row) in chunk.bad for row in rows)


def count_chunk(result: ShardResult, chunk: Chunk) -> None:
    """Add a chunk's rows and seconds to its shard's result."""
    result.computed += chunk.computed
    result.reused += chunk.reused
    result.read_s += chunk.timing["read_s"]
    result.compute_s += chunk.timing["compute_s"]
    result.bad += [BadRow(row, chunk.names[row], reason) for row, reason in sorted(chunk.bad.items())]


def write_chunk(store: FeatureStore, chunk: Chunk, order: ShardOrder, result: ShardResult) -> None:
    """Write a chunk and log its timing; a retried chunk is left alone if the same rows are bad again."""
    if store.ledger.done(chunk.number) and _known_bad(store, chunk.number) == chunk.bad:
        return
    started = time.perf_counter()
    ChunkWriter(store).write(chunk.number, chunk.features, chunk.bad, keys=chunk.names)
    write_s = time.perf_counter() - started
    result.write_s += write_s
    timing: Mapping[str, float | int | str] = {
        "chunk": chunk.number,
        "shard": order.shard,
        "device": order.device,
        "images": chunk.computed,
        **{name: round(seconds, 6) for name, seconds in (*chunk.timing.items(), ("write_s", write_s))},
    }
    log_timing(store.path, timing)


def _known_bad(store: FeatureStore, number: int) -> dict[int, str]:
    return {item.row: item.reason for item in store.ledger.entry(number).bad}


@contextmanager
def timed(timing: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds that the block takes to `timing[name]`."""
    started = time.perf_counter()
    yield
    timing[name] += time.perf_counter() - started
