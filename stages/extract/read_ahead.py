"""The line's first station: images are read, augmented and preprocessed ahead of the backbone.

By threads on a CPU, whose cores the backbone needs anyway, and for few images. By processes beside a GPU,
which is faster than one process's threads can feed: Python lets only one of them run its own code at a time.
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
from stages.images.augment import AugmentConfig
from stages.index.packs.reader import ImageSource

_SHARED_MEMORY = Path("/dev/shm")
_PREFETCH = 2
"""Batches that each process reads ahead."""
_WORTH_PROCESSES = 2048
"""Images of a shard from which on it pays to start them, which takes some ten seconds."""
_BESIDE_A_CPU = 2
"""Threads that keep a CPU busy with its backbone fed."""


def read_ahead(order: ShardOrder) -> Iterator[ImageBatch]:
    """Yield the batches of an order, in its order, while the next few are read.

    Raises
    ------
    InputError
        If where the images come from is not what the manifest says.
    """
    reader, gpu = ImageReader.of(order), torch.device(order.device).type == "cuda"
    count = reader_count(order.config, gpu=gpu, share=order.threads)
    many = gpu and order.images >= _WORTH_PROCESSES and _processes_fit(order.config, count)
    found = (_by_processes if many else _by_threads)(reader, _batches(order, reader.source), count)
    for batch in found:
        if isinstance(batch, PlacecacheError):
            raise batch
        yield batch


def reader_count(config: ExtractConfig, *, gpu: bool, share: int) -> int:
    """Return how many threads or processes read images; `share` are this worker's cores, 0 if all."""
    if config.readers != "auto":
        return config.readers
    return (share or len(os.sched_getaffinity(0))) if gpu else _BESIDE_A_CPU


def end_readers() -> None:
    """End the processes that read images, if there are any."""
    _loader.cache_clear()


class _Tasks:
    """What the processes are to read: batches of images, other ones for each shard."""

    def __init__(self) -> None:
        self.batches: Iterable[list[ImageRow]] = ()

    def __iter__(self) -> Iterator[list[ImageRow]]:
        return iter(self.batches)


@lru_cache(maxsize=1)
def _loader(
    manifest: Path, config: ExtractConfig, views: AugmentConfig | None, seed: int, count: int
) -> tuple[DataLoader[ImageBatch | PlacecacheError], _Tasks]:
    """Return processes that read, and what they are told; they stay from shard to shard."""
    tasks = _Tasks()
    loader = DataLoader(
        ImageReader(manifest, config, views, seed),
        batch_size=None,
        sampler=tasks,
        num_workers=count,
        multiprocessing_context="spawn",
        prefetch_factor=_PREFETCH,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )
    return loader, tasks


def _by_processes(
    reader: ImageReader, batches: Iterable[list[ImageRow]], count: int
) -> Iterator[ImageBatch | PlacecacheError]:
    loader, tasks = _loader(reader.manifest, reader.config, reader.views, reader.seed, count)
    tasks.batches = batches
    yield from loader


def _by_threads(
    reader: ImageReader, batches: Iterable[list[ImageRow]], count: int
) -> Iterator[ImageBatch | PlacecacheError]:
    """Yield batches while the next few are read: as many as there are readers, and one."""
    waiting: deque[Future[ImageBatch | PlacecacheError]] = deque()
    threads = ThreadPoolExecutor(count, "reader")
    try:
        for images in batches:
            waiting.append(threads.submit(reader.__getitem__, images))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(wait=True, cancel_futures=True)


def _processes_fit(config: ExtractConfig, count: int) -> bool:
    """Whether this process may have others, and the batches on their way fit the shared memory."""
    if multiprocessing.current_process().daemon or not _SHARED_MEMORY.is_dir():
        return False
    batch_bytes = 3 * config.batch_size * config.image_size**2
    return shutil.disk_usage(_SHARED_MEMORY).free > (count * _PREFETCH + 2) * batch_bytes


def _batches(order: ShardOrder, source: ImageSource) -> Iterator[list[ImageRow]]:
    """Yield the images to read; a batch never crosses a chunk.

    What a batch holds must not depend on which other chunks were still to be done, since a
    backbone's last bits may depend on the whole batch.
    """
    size = order.config.batch_size
    for rows in order.todo.values():
        if not len(rows):
            continue
        if order.image_row is None or order.view is None:
            keyed, views = rows, np.full(len(rows), -1)
        else:
            keyed, views = order.image_row[rows - order.first_row], order.view[rows - order.first_row]
        low = int(keyed[0])
        places = source.places(low, int(keyed[-1]) + 1)
        images = [
            ImageRow(int(row), places[int(key) - low], int(view))
            for row, key, view in zip(rows, keyed, views, strict=True)
        ]
        for start in range(0, len(images), size):
            yield images[start : start + size]
