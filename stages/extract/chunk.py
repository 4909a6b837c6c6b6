"""A chunk on the line: begun with what is known, filled batch by batch, written when it is whole."""

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


class Computed(NamedTuple):
    """One output of a batch, as it will be stored.

    Attributes
    ----------
    values : Tensor, (B, F)
        Features of the store's dtype.
    finite : Tensor, (B,) bool
        Rows without NaN or infinity.
    """

    values: Tensor
    finite: Tensor


@dataclass
class Chunk:
    """A chunk on the line: what is known of its rows so far."""

    number: int
    rows: slice
    features: dict[str, npt.NDArray[np.floating]]
    timing: dict[str, float]
    bad: dict[int, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    computed: int = 0
    reused: int = 0


def begin(order: ShardOrder, store: FeatureStore, number: int) -> Chunk:
    """Return a chunk with what is known already: its own valid rows, and rows carried over."""
    rows = store.spec.chunk_slice(number)
    if number in order.again and store.ledger.done(number):
        require_sound(store, number)
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
    chunk.reused = len(copy_rows(order.carried, rows, features))
    return chunk


def fill(order: ShardOrder, chunk: Chunk, batch: ImageBatch, computed: Mapping[str, Computed]) -> None:
    """Put a batch's features into its chunk; such as overflow become bad rows, unreadable ones stay out."""
    if not computed:
        return
    rows = np.array([image.row for image in batch.images])
    good = ~np.isin(rows, list(batch.reasons))
    for name, (values, finite) in computed.items():
        for row in rows[good & ~finite.numpy()]:
            chunk.bad[int(row)] = f"feature {name} is not finite as {order.config.dtype}"
        chunk.features[name][rows[good] - chunk.rows.start] = values.numpy()[good]
    chunk.computed += len(rows) - sum(int(row) in chunk.bad for row in rows)


def account(result: ShardResult, chunk: Chunk) -> None:
    """Count a chunk's rows and seconds in its shard's result."""
    result.computed += chunk.computed
    result.reused += chunk.reused
    result.read_s += chunk.timing["read_s"]
    result.compute_s += chunk.timing["compute_s"]
    result.bad += [BadRow(row, chunk.names[row], reason) for row, reason in sorted(chunk.bad.items())]


def finish(store: FeatureStore, chunk: Chunk, order: ShardOrder, result: ShardResult) -> None:
    """Write a chunk, unless a second try at its bad rows changed nothing."""
    if store.ledger.done(chunk.number) and _bad_before(store, chunk.number) == chunk.bad:
        return
    begun = time.perf_counter()
    ChunkWriter(store).write(chunk.number, chunk.features, chunk.bad, keys=chunk.names)
    write_s = time.perf_counter() - begun
    result.write_s += write_s
    timing: Mapping[str, float | int | str] = {
        "chunk": chunk.number,
        "shard": order.shard,
        "device": order.device,
        "images": chunk.computed,
        **{name: round(seconds, 6) for name, seconds in (*chunk.timing.items(), ("write_s", write_s))},
    }
    log_timing(store.path, timing)


def _bad_before(store: FeatureStore, number: int) -> dict[int, str]:
    return {item.row: item.reason for item in store.ledger.entry(number).bad}


@contextmanager
def timed(timing: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds that the block takes to `timing[name]`."""
    begun = time.perf_counter()
    yield
    timing[name] += time.perf_counter() - begun
