"""Read images ahead of the backbone, in threads or in processes.

Threads serve a CPU, whose cores the backbone needs, and small shards. A GPU outruns the threads of one
process, since Python runs only one of them at a time: processes read for it.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from cache.errors import PlacecacheError
from stages.extract.batch import ImageBatch, ImageReader, ImageRow
from stages.extract.config import ExtractConfig
from stages.extract.plan import ShardOrder
from stages.index.packs.reader import ImageSource

_SHARED_MEMORY = Path("/dev/shm")
_PREFETCH = 2
"""Batches that each process reads ahead."""
_MIN_IMAGES_FOR_PROCESSES = 2048
"""Starting the processes takes some ten seconds: smaller shards are read by threads."""
_THREADS_BESIDE_A_CPU = 2
"""As many as keep a backbone on a CPU supplied."""


def read_ahead(order: ShardOrder) -> Iterator[ImageBatch]:
    """Yield the batches of an order, one after the other, while the next few are read.

    Raises
    ------
    InputError
        If a pack is not what the manifest says.
    """
    reader, gpu = ImageReader.of(order), torch.device(order.device).type == "cuda"
    count = reader_count(order.config, gpu=gpu, share=order.threads)
    large = order.images >= _MIN_IMAGES_FOR_PROCESSES
    read = _by_processes if gpu and large and _processes_fit(order.config, count) else _by_threads
    for batch in read(reader, _batches(order, reader.source), count):
        if isinstance(batch, PlacecacheError):
            raise batch
        yield batch


def reader_count(config: ExtractConfig, *, gpu: bool, share: int) -> int:
    """Return how many threads or processes read; `share` is this worker's share of the cores, 0 if all."""
    if config.readers != "auto":
        return config.readers
    return (share or len(os.sched_getaffinity(0))) if gpu else _THREADS_BESIDE_A_CPU


def end_readers() -> None:
    """End the reading processes, if there are any."""
    _loader.cache_clear()


class _BatchList:
    """Sampler of the reading processes, which outlive a shard: its batches are replaced for each shard."""

    def __init__(self) -> None:
        self.batches: Iterable[list[ImageRow]] = ()

    def __iter__(self) -> Iterator[list[ImageRow]]:
        return iter(self.batches)


@lru_cache(maxsize=1)
def _loader(reader: ImageReader, count: int) -> tuple[DataLoader[ImageBatch | PlacecacheError], _BatchList]:
    """Return reading processes and their sampler; they are started once and serve every shard."""
    sampler = _BatchList()
    loader = DataLoader(
        reader,
        batch_size=None,
        sampler=sampler,
        num_workers=count,
        multiprocessing_context="spawn",
        prefetch_factor=_PREFETCH,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )
    return loader, sampler


def _by_processes(
    reader: ImageReader, batches: Iterable[list[ImageRow]], count: int
) -> Iterator[ImageBatch | PlacecacheError]:
    loader, sampler = _loader(reader, count)
    sampler.batches = batches
    yield from loader


def _by_threads(
    reader: ImageReader, batches: Iterable[list[ImageRow]], count: int
) -> Iterator[ImageBatch | PlacecacheError]:
    """Yield batches while the next `count` of them are read."""
    pending: deque[Future[ImageBatch | PlacecacheError]] = deque()
    threads = ThreadPoolExecutor(count, "reader")
    try:
        for images in batches:
            pending.append(threads.submit(reader.__getitem__, images))
            if len(pending) > count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        threads.shutdown(wait=True, cancel_futures=True)


def _processes_fit(config: ExtractConfig, count: int) -> bool:
    """Whether this process may start others, and their prefetched batches fit the shared memory."""
    if multiprocessing.current_process().daemon or not _SHARED_MEMORY.is_dir():
        return False
    batch_bytes = 3 * config.batch_size * config.image_size**2
    return shutil.disk_usage(_SHARED_MEMORY).free > (count * _PREFETCH + 2) * batch_bytes


def _batches(order: ShardOrder, source: ImageSource) -> Iterator[list[ImageRow]]:
    """Yield the images to read, batch by batch."""
    size = order.config.batch_size
    for rows in order.todo.values():
        if not len(rows):
            continue
        if order.image_row is None or order.view is None:
            image_rows, views = rows, np.full(len(rows), -1)
        else:
            image_rows, views = order.image_row[rows - order.first_row], order.view[rows - order.first_row]
        first = int(image_rows[0])
        locations = source.locations(first, int(image_rows[-1]) + 1)
        images = [
            ImageRow(int(row), locations[int(image_row) - first], int(view))
            for row, image_row, view in zip(rows, image_rows, views, strict=True)
        ]
        # No batch crosses a chunk: the last bits of a feature may depend on the whole batch, which
        # must not depend on the chunks that were done before.
        for start in range(0, len(images), size):
            yield images[start : start + size]
