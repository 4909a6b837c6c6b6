"""The line: readers -> the backbone -> one writing thread, for the chunks of a shard.

Few chunks are in memory: those of the batches on their way, `_AHEAD` + 1 at most on a GPU, and one being
written, of which the writer has a copy. An output's chunk is 64 MiB at most (`cache.spec`).
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cache.store import FeatureStore, open_store
from stages.errors import WeightsError
from stages.extract.batch import ImageBatch
from stages.extract.chunk import Chunk, Computed, account, begin, fill, finish, timed
from stages.extract.config import ExtractConfig
from stages.extract.plan import ShardOrder
from stages.extract.read_ahead import read_ahead
from stages.extract.result import ShardResult, too_many_bad
from stages.extract.todo import without_finished
from stages.extract.upload import uploaded
from stages.models.backbones.backbone import Backbone, load_backbone

_STORED = {"float16": torch.float16, "float32": torch.float32}

_AHEAD = 2
"""Batches that a GPU has before it while the one behind them is fetched: bridges what holds the CPU up."""


@dataclass
class _Flight:
    """A batch on its way through the backbone: its features, and the event after which they are there."""

    chunk: Chunk
    batch: ImageBatch | None
    computed: dict[str, Computed]
    event: torch.cuda.Event | None
    last: bool


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
    writing: list[Future[None]] = []
    order, finished = without_finished(order, store)
    for number in finished:
        _account_finished(result, order, store, number, advance)
    with (
        _threads(order.threads),
        _settled(),
        ThreadPoolExecutor(1, "writer") as writer,
        closing(_computed(order, store, advance)) as chunks,
    ):
        for chunk in chunks:
            account(result, chunk)
            with timed(chunk.timing, "write_wait_s"):
                wait(writing)
            for done in writing:
                done.result()
            writing = [writer.submit(finish, store, chunk, order, result)]
            if len(result.bad) > order.bad_limit:
                break
    for done in writing:
        done.result()
    if len(result.bad) > order.bad_limit:
        raise too_many_bad(result.bad, order.config, order.store)
    return result


def _computed(
    order: ShardOrder, store: FeatureStore, advance: Callable[[int], None] | None
) -> Generator[Chunk, None, None]:
    """Yield an order's chunks, computed; a GPU is given the next batches before the last one is fetched."""
    device = torch.device(order.device)
    batches = uploaded(read_ahead(order), order.config, device)
    flight: deque[_Flight] = deque()
    for number in order.todo:
        for launched in _launched(order, begin(order, store, number), batches):
            flight.append(launched)
            while len(flight) > _AHEAD * (device.type == "cuda"):
                yield from _landed(order, flight.popleft(), advance)
    while flight:
        yield from _landed(order, flight.popleft(), advance)


def _launched(
    order: ShardOrder, chunk: Chunk, batches: Iterator[tuple[ImageBatch, Tensor]]
) -> Iterator[_Flight]:
    """Yield a chunk's batches once they are on their way; one without a batch if all was known already."""
    count = -(-len(order.todo[chunk.number]) // order.config.batch_size)
    if not count:
        yield _Flight(chunk, None, {}, None, last=True)
    for position in range(count):
        with timed(chunk.timing, "read_wait_s"):
            batch, pixels = next(batches)
        yield _launch(order, chunk, batch, pixels, last=position == count - 1)


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
        outputs=config.stored,
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


def _launch(order: ShardOrder, chunk: Chunk, batch: ImageBatch, pixels: Tensor, *, last: bool) -> _Flight:
    """Put a batch through the backbone; a GPU computes on while this returns."""
    chunk.timing["read_s"] += batch.read_s
    chunk.names |= {image.row: image.name for image in batch.images}
    chunk.bad |= batch.reasons
    if len(batch.reasons) == len(batch.images):
        return _Flight(chunk, batch, {}, None, last)
    backbone = backbone_for(order.config, order.device, order.weights_id)
    with timed(chunk.timing, "compute_s"):
        computed = {name: _fetched(values, order.config.dtype) for name, values in backbone(pixels).items()}
        landed = torch.cuda.current_stream(pixels.device).record_event() if pixels.is_cuda else None
    return _Flight(chunk, batch, computed, landed, last)


def _fetched(values: Tensor, dtype: str) -> Computed:
    """Return features (B, F) float32 on their way to the CPU, as they will be stored.

    Rounded and looked through where they are: all tokens of an image are long, and half as long then.
    """
    rounded = values.to(_STORED[dtype])
    finite = rounded.isfinite().all(dim=1)
    return Computed(rounded.to("cpu", non_blocking=True), finite.to("cpu", non_blocking=True))


def _landed(order: ShardOrder, flight: _Flight, advance: Callable[[int], None] | None) -> Iterator[Chunk]:
    """Put a batch's features into its chunk's arrays; yield the chunk when that was its last batch."""
    chunk, batch = flight.chunk, flight.batch
    if batch is not None:
        with timed(chunk.timing, "compute_s"):
            if flight.event is not None:
                flight.event.synchronize()
            fill(order, chunk, batch, flight.computed)
        if advance is not None:
            advance(len(batch.images))
    if flight.last:
        yield chunk


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
def _settled() -> Iterator[None]:
    """Keep what is in memory now out of garbage collections, which hold a line up for 0.4 s each.

    A compiled backbone and its libraries are millions of objects that stay anyway.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


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
