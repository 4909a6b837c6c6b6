"""The line's first station: images are read, augmented and preprocessed ahead of the backbone.

By threads on a CPU, whose cores the backbone needs anyway, and for few images. By processes beside a GPU,
which is faster than one process's threads can feed: Python lets only one of them run its own code at a time.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cache.errors import PlacecacheError
from stages.augment import AugmentConfig, augment
from stages.backbone import preprocess_for
from stages.extract.config import ExtractConfig
from stages.extract.plan import ShardOrder, view_name
from stages.images import UnreadableImage
from stages.jpegs import plain_jpeg
from stages.manifest import Manifest
from stages.packs import ImageSource, Place

_SHARED_MEMORY = Path("/dev/shm")
_PREFETCH = 2
"""Batches that each process reads ahead."""
_WORTH_PROCESSES = 2048
"""Images of a shard from which on it pays to start them, which takes some ten seconds."""
_BESIDE_A_CPU = 2
"""Threads that keep a CPU busy with its backbone fed."""


@dataclass(frozen=True)
class Image:
    """One row to compute.

    Attributes
    ----------
    row : int
        Row of the store.
    place : Place
        Key of the image, and where it lies.
    view : int
        Number of the view; -1 for the image itself.
    """

    row: int
    place: Place
    view: int

    @property
    def name(self) -> str:
        """What identifies the row."""
        return self.place.key if self.view < 0 else view_name(self.place.key, self.view)


@dataclass
class Batch:
    """Images of one chunk.

    Attributes
    ----------
    images : list of Image
        What they are.
    pixels : Tensor, (B, S, S, 3) uint8
        Preprocessed pixels; an unreadable image's are black and its features dropped later, so that
        it changes nothing for its neighbours. Of length 0 if the GPU is to decode all of them.
    jpegs : Tensor, (bytes,) uint8
        JPEG files that the GPU is to decode, one after the other.
    spans : dict of int to slice
        Number in the batch -> where its file lies in `jpegs`.
    reasons : dict of int to str
        Row -> why it is unreadable.
    read_s : float
        Seconds that reading took.
    """

    images: list[Image]
    pixels: Tensor
    jpegs: Tensor
    spans: dict[int, slice]
    reasons: dict[int, str]
    read_s: float

    def pin_memory(self) -> Batch:
        """Move the pixels to where a copy to the GPU can run beside its work; called by the loader."""
        self.pixels = self.pixels.pin_memory()
        return self


class ImageReader(Dataset[Batch | PlacecacheError]):
    """Reads batches of images.

    Parameters
    ----------
    manifest : Path
        The images.
    config : ExtractConfig
        The settings.
    views : AugmentConfig or None
        How views are drawn.
    seed : int
        Seed of the views.
    """

    def __init__(self, manifest: Path, config: ExtractConfig, views: AugmentConfig | None, seed: int) -> None:
        self.manifest, self.config, self.views, self.seed = manifest, config, views, seed
        self.preprocess = preprocess_for(config.backbone, config.image_size)

    @classmethod
    def of(cls, order: ShardOrder) -> ImageReader:
        """Return the reader of an order."""
        return cls(order.manifest, order.config, order.augment, order.seed)

    def __getstate__(self) -> dict[str, object]:
        """Without the files that are open: each process opens its own."""
        return {name: value for name, value in vars(self).items() if name != "_source"}

    @property
    def source(self) -> ImageSource:
        """Where the images come from."""
        if not hasattr(self, "_source"):
            self._source = ImageSource(Manifest.open(self.manifest))
        return self._source

    def __getitem__(self, images: list[Image]) -> Batch | PlacecacheError:
        """Return a batch, or what stops the run: an error keeps its kind on its way between processes."""
        try:
            return self.read(images)
        except PlacecacheError as error:
            return error

    def read(self, images: list[Image]) -> Batch:
        """Return a batch."""
        begun, size = time.perf_counter(), self.preprocess.image_size
        pixels, files = np.empty((0, size, size, 3), np.uint8), bytearray()
        spans: dict[int, slice] = {}
        reasons: dict[int, str] = {}
        for number, image in enumerate(images):
            try:
                found = self._read(image)
            except UnreadableImage as error:
                reasons[image.row] = error.reason
                continue
            if isinstance(found, bytes):
                spans[number] = slice(len(files), len(files) + len(found))
                files += found
                continue
            if not len(pixels):
                pixels = np.zeros((len(images), size, size, 3), np.uint8)
            pixels[number] = found
        # A tensor's memory is handed from process to process as it is, an array's would be copied.
        jpegs = torch.frombuffer(files, dtype=torch.uint8) if files else torch.empty(0, dtype=torch.uint8)
        return Batch(images, torch.from_numpy(pixels), jpegs, spans, reasons, time.perf_counter() - begun)

    def _read(self, image: Image) -> bytes | npt.NDArray[np.uint8]:
        """Return an image's pixels, or the file itself where the GPU is to decode it."""
        source, place, preprocess = self.source, image.place, self.preprocess
        if self.views is None and self.config.decoder == "nvjpeg":
            content = source.content(place)
            if plain_jpeg(content, preprocess):
                return content
        picture = source.read(place, decode_at_least=preprocess.decode_at_least)
        if self.views is not None:
            picture = augment(picture, key=place.key, view=image.view, seed=self.seed, config=self.views)
        return preprocess(picture)


def read_ahead(order: ShardOrder) -> Iterator[Batch]:
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
        self.batches: Iterable[list[Image]] = ()

    def __iter__(self) -> Iterator[list[Image]]:
        return iter(self.batches)


@lru_cache(maxsize=1)
def _loader(
    manifest: Path, config: ExtractConfig, views: AugmentConfig | None, seed: int, count: int
) -> tuple[DataLoader[Batch | PlacecacheError], _Tasks]:
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
    reader: ImageReader, batches: Iterable[list[Image]], count: int
) -> Iterator[Batch | PlacecacheError]:
    loader, tasks = _loader(reader.manifest, reader.config, reader.views, reader.seed, count)
    tasks.batches = batches
    yield from loader


def _by_threads(
    reader: ImageReader, batches: Iterable[list[Image]], count: int
) -> Iterator[Batch | PlacecacheError]:
    """Yield batches while the next few are read: as many as there are readers, and one."""
    waiting: deque[Future[Batch | PlacecacheError]] = deque()
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


def _batches(order: ShardOrder, source: ImageSource) -> Iterator[list[Image]]:
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
            Image(int(row), places[int(key) - low], int(view))
            for row, key, view in zip(rows, keyed, views, strict=True)
        ]
        for start in range(0, len(images), size):
            yield images[start : start + size]
