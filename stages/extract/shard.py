"""Extract one shard: images are read ahead, go through the backbone, and are written chunk by chunk.

Reading, computing and writing overlap. A GPU has `_QUEUED_ON_GPU` batches queued, so memory holds their
chunks, the chunk of the next batch, and a copy of the chunk being written. An output's chunk takes 64 MiB
at most (`cache.spec`).
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from cache.store import FeatureStore, open_store
from stages.errors import WeightsError
from stages.extract.batch import ImageBatch, upload
from stages.extract.chunk import (
    Chunk,
    RoundedFeatures,
    add_features,
    count_chunk,
    start_chunk,
    timed,
    write_chunk,
)
from stages.extract.config import ExtractConfig
from stages.extract.plan import ShardOrder
from stages.extract.read_ahead import read_ahead
from stages.extract.result import ShardResult, too_many_bad
from stages.extract.todo import without_finished
from stages.models.backbones.backbone import Backbone, load_backbone

_STORED_DTYPES = {"float16": torch.float16, "float32": torch.float32}

_QUEUED_ON_GPU = 2
"""Batches queued on a GPU while an earlier one is copied back: keeps it busy through pauses of the CPU."""


@dataclass
class BatchInFlight:
    """A batch in the backbone; on a GPU its features are valid once `ready` has passed.

    A chunk without rows to compute has one without a batch.
    """

    chunk: Chunk
    batch: ImageBatch | None
    features: dict[str, RoundedFeatures]
    ready: torch.cuda.Event | None
    last: bool


def extract_shard(order: ShardOrder, advance: Callable[[int], None] | None = None) -> ShardResult:
    """Finish one shard: read, compute and write every row of its order.

    Parameters
    ----------
    order : ShardOrder
        The work.
    advance : callable, optional
        Called with the number of rows of every batch that was computed.

    Raises
    ------
    InputError
        If more rows are bad than the order allows. Chunks that were written stay.
    """
    store = open_store(order.store)
    result = ShardResult(order.shard)
    writing: list[Future[None]] = []
    order, finished = without_finished(order, store)
    for number in finished:
        _count_finished(result, order, store, number, advance)
    with (
        _cpu_threads(order.threads),
        _loaded_objects_uncollected(),
        ThreadPoolExecutor(1, "writer") as writer,
        closing(_computed_chunks(order, store, advance)) as chunks,
    ):
        for chunk in chunks:
            count_chunk(result, chunk)
            with timed(chunk.timing, "write_wait_s"):
                wait(writing)
            for write in writing:
                write.result()
            writing = [writer.submit(write_chunk, store, chunk, order, result)]
            if len(result.bad) > order.bad_limit:
                break
    for write in writing:
        write.result()
    if len(result.bad) > order.bad_limit:
        raise too_many_bad(result.bad, order.config, order.store)
    return result


@lru_cache(maxsize=1)
def backbone_for(config: ExtractConfig, device: str, weights_id: str) -> Backbone:
    """Return the backbone, loaded once per process.

    Raises
    ------
    WeightsError
        If this machine's weights are not those of the store: workers may run on several machines.
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


def _computed_chunks(
    order: ShardOrder, store: FeatureStore, advance: Callable[[int], None] | None
) -> Generator[Chunk, None, None]:
    """Yield an order's chunks, computed."""
    device = torch.device(order.device)
    queued = _QUEUED_ON_GPU if device.type == "cuda" else 0
    batches = upload(read_ahead(order), order.preprocess, device)
    in_flight: deque[BatchInFlight] = deque()
    for number in order.todo:
        for batch in _send_batches(order, start_chunk(order, store, number), batches):
            in_flight.append(batch)
            while len(in_flight) > queued:
                yield from _receive_batch(in_flight.popleft(), advance)
    while in_flight:
        yield from _receive_batch(in_flight.popleft(), advance)


def _send_batches(
    order: ShardOrder, chunk: Chunk, batches: Iterator[tuple[ImageBatch, Tensor]]
) -> Iterator[BatchInFlight]:
    """Send a chunk's batches into the backbone, one by one."""
    count = -(-len(order.todo[chunk.number]) // order.config.batch_size)
    if not count:
        yield BatchInFlight(chunk, None, {}, None, last=True)
    for position in range(count):
        with timed(chunk.timing, "read_wait_s"):
            batch, pixels = next(batches)
        yield _send_batch(order, chunk, batch, pixels, last=position == count - 1)


def _send_batch(
    order: ShardOrder, chunk: Chunk, batch: ImageBatch, pixels: Tensor, *, last: bool
) -> BatchInFlight:
    """Send a batch into the backbone; on a GPU this returns before it is computed."""
    chunk.timing["read_s"] += batch.read_s
    chunk.names |= {image.row: image.name for image in batch.images}
    chunk.bad |= batch.reasons
    if len(batch.reasons) == len(batch.images):
        return BatchInFlight(chunk, batch, {}, None, last)
    backbone = backbone_for(order.config, order.device, order.weights_id)
    with timed(chunk.timing, "compute_s"):
        features = {name: rounded(values, order.config.dtype) for name, values in backbone(pixels).items()}
        ready = torch.cuda.current_stream(pixels.device).record_event() if pixels.is_cuda else None
    return BatchInFlight(chunk, batch, features, ready, last)


def rounded(values: Tensor, dtype: str) -> RoundedFeatures:
    """Return features (B, F) float32 in the store's dtype, on their way to the CPU."""
    # Rounded and checked before the copy: all tokens of an image are long, and rounding halves them.
    stored = values.to(_STORED_DTYPES[dtype])
    finite = stored.isfinite().all(dim=1)
    return RoundedFeatures(stored.to("cpu", non_blocking=True), finite.to("cpu", non_blocking=True))


def _receive_batch(sent: BatchInFlight, advance: Callable[[int], None] | None) -> Iterator[Chunk]:
    """Add a batch's features to its chunk; yield the chunk after its last batch."""
    if sent.batch is not None:
        with timed(sent.chunk.timing, "compute_s"):
            if sent.ready is not None:
                sent.ready.synchronize()
            add_features(sent.chunk, sent.batch, sent.features)
        if advance is not None:
            advance(len(sent.batch.images))
    if sent.last:
        yield sent.chunk


def _count_finished(
    result: ShardResult,
    order: ShardOrder,
    store: FeatureStore,
    number: int,
    advance: Callable[[int], None] | None,
) -> None:
    """Count a chunk that another worker finished before it was lost."""
    rows, bad = store.spec.chunk_slice(number), store.ledger.entry(number).bad
    reused = order.reused.count(rows)
    tried = int(rows.stop - rows.start) - reused
    result.reused += reused
    result.computed += tried - len(bad)
    result.bad += bad
    if advance is not None:
        advance(tried)


@contextmanager
def _loaded_objects_uncollected() -> Iterator[None]:
    """Exempt the objects that exist now from garbage collection.

    A compiled backbone and its libraries are millions of objects that stay anyway: visiting them
    would stop extraction for 0.4 s at every collection.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _cpu_threads(threads: int) -> Iterator[None]:
    """Let the backbone compute with that many CPU threads; 0 changes nothing."""
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if threads:
            torch.set_num_threads(before)
