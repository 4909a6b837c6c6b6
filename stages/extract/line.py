"""The line: reading threads -> the backbone -> one writing thread, for the chunks of a shard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from cache.check import require_sound
from cache.ledger import BadRow
from cache.reader import FeatureReader
from cache.store import FeatureStore, open_store
from cache.timings import log_timing
from cache.writer import ChunkWriter
from stages.backbone import Backbone, load_backbone
from stages.errors import WeightsError
from stages.extract.config import ExtractConfig
from stages.extract.orders import without_finished
from stages.extract.plan import ShardOrder
from stages.extract.reading import Batch, read_ahead
from stages.extract.result import ShardResult, too_many_bad
from stages.extract.reuse import copy_rows


@dataclass
class _Chunk:
    """A chunk on the line: what is known of its rows so far."""

    number: int
    rows: slice
    features: dict[str, npt.NDArray[np.floating]]
    timing: dict[str, float]
    bad: dict[int, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    computed: int = 0
    reused: int = 0


def extract_shard(order: ShardOrder, advance: Callable[[int], None] | None = None) -> ShardResult:
    """Finish one shard: read, compute and write every row of its order.

    Parameters
    ----------
    order : ShardOrder
        What to do.
    advance : callable, optional
        Called with the number of rows that went through, as they do.

    Raises
    ------
    InputError
        If more rows are bad than the order allows. What was written before stays.
    """
    store = open_store(order.store)
    result = ShardResult(order.shard)
    order, finished = without_finished(order, store)
    for number in finished:
        _account_finished(result, order, store, number, advance)
    with ExitStack() as stack:
        stack.enter_context(_threads(order.threads))
        readers = stack.enter_context(ThreadPoolExecutor(order.config.readers, "reader"))
        writer = stack.enter_context(ThreadPoolExecutor(1, "writer"))
        stack.callback(lambda: readers.shutdown(wait=True, cancel_futures=True))
        batches = read_ahead(readers, order)
        writing: Future[None] | None = None
        for number in order.todo:
            chunk = _begin(order, store, number)
            for _ in range(-(-len(order.todo[number]) // order.config.batch_size)):
                with _timed(chunk.timing, "read_wait_s"):
                    batch = next(batches).result()
                _compute(order, chunk, batch)
                if advance is not None:
                    advance(len(batch.images))
            _account(result, chunk)
            if writing is not None:
                with _timed(chunk.timing, "write_wait_s"):
                    writing.result()
            writing = writer.submit(_finish, store, chunk, order, result)
            if len(result.bad) > order.bad_limit:
                break
        if writing is not None:
            writing.result()
    if len(result.bad) > order.bad_limit:
        raise too_many_bad(result.bad, order.config, order.store)
    return result


@lru_cache(maxsize=1)
def backbone_for(config: ExtractConfig, device: str, weights_id: str) -> Backbone:
    """Return the backbone, loaded once per process.

    Raises
    ------
    WeightsError
        If the weights here are others than those of the store: workers may run on other machines.
    """
    backbone = load_backbone(
        config.backbone,
        weights=config.weights,
        image_size=config.image_size,
        outputs=config.outputs,
        device=device,
        precision=config.precision,
        compiled=config.compile,
    )
    if backbone.weights_id != weights_id:
        raise WeightsError(
            f"the weights of {config.backbone} on this machine are "
            f"{backbone.weights_id[:16]}, those of the store {weights_id[:16]}: "
            "copy the same file to every worker"
        )
    return backbone


def _begin(order: ShardOrder, store: FeatureStore, number: int) -> _Chunk:
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
    chunk = _Chunk(number, rows, features, timing)
    chunk.reused = len(copy_rows(order.carried, rows, features))
    return chunk


def _compute(order: ShardOrder, chunk: _Chunk, batch: Batch) -> None:
    """Put a batch through the backbone into the chunk's arrays."""
    chunk.timing["read_s"] += batch.read_s
    chunk.names |= {image.row: image.name for image in batch.images}
    chunk.bad |= batch.reasons
    if len(batch.reasons) == len(batch.images):
        return
    backbone = backbone_for(order.config, order.device, order.weights_id)
    begun = time.perf_counter()
    pooled = backbone(torch.from_numpy(batch.pixels))
    rows = np.array([image.row for image in batch.images])
    good = ~np.isin(rows, list(batch.reasons))
    for name, values in pooled.items():
        with np.errstate(over="ignore", invalid="ignore"):
            features = values.cpu().numpy().astype(order.config.dtype)
        overflown = good & ~np.isfinite(features).all(axis=1)
        for row in rows[overflown]:
            chunk.bad[int(row)] = f"feature {name} is not finite as {order.config.dtype}"
        chunk.features[name][rows[good] - chunk.rows.start] = features[good]
    chunk.computed += len(rows) - sum(int(row) in chunk.bad for row in rows)
    chunk.timing["compute_s"] += time.perf_counter() - begun


def _account_finished(
    result: ShardResult,
    order: ShardOrder,
    store: FeatureStore,
    number: int,
    advance: Callable[[int], None] | None,
) -> None:
    """Count a chunk that another worker finished before it was lost."""
    rows = store.spec.chunk_slice(number)
    bad = store.ledger.entry(number).bad
    low, high = np.searchsorted(order.carried.rows, [rows.start, rows.stop])
    result.reused += int(high - low)
    result.computed += rows.stop - rows.start - int(high - low) - len(bad)
    result.bad += bad
    if advance is not None:
        advance(rows.stop - rows.start - int(high - low))


@contextmanager
def _timed(timing: dict[str, float], name: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    timing[name] += time.perf_counter() - begun


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    """Let the backbone compute with that many CPU threads; 0 changes nothing."""
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if threads:
            torch.set_num_threads(before)


def _account(result: ShardResult, chunk: _Chunk) -> None:
    result.computed += chunk.computed
    result.reused += chunk.reused
    result.read_s += chunk.timing["read_s"]
    result.compute_s += chunk.timing["compute_s"]
    result.bad += [BadRow(row, chunk.names[row], reason) for row, reason in sorted(chunk.bad.items())]


def _finish(store: FeatureStore, chunk: _Chunk, order: ShardOrder, result: ShardResult) -> None:
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
