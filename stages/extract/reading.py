"""The line's first station: threads that read, augment and preprocess images ahead of the backbone."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from stages.augment import augment
from stages.backbone import Preprocess, preprocess_for
from stages.extract.plan import ShardOrder, view_name
from stages.images import UnreadableImage
from stages.manifest import Manifest
from stages.packs import ImageSource, Place


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


@dataclass(frozen=True)
class Batch:
    """Decoded images of one chunk.

    Attributes
    ----------
    images : list of Image
        What they are.
    pixels : ndarray, (B, S, S, 3) uint8
        Preprocessed pixels; an unreadable image's are black and its features dropped later, so that
        it changes nothing for its neighbours.
    reasons : dict of int to str
        Row -> why it is unreadable.
    read_s : float
        Seconds that reading took.
    """

    images: list[Image]
    pixels: npt.NDArray[np.uint8]
    reasons: dict[int, str]
    read_s: float


def read_ahead(readers: ThreadPoolExecutor, order: ShardOrder) -> Iterator[Future[Batch]]:
    """Yield batches in order while the next few are read: as many as there are readers, and one."""
    source = ImageSource(Manifest.open(order.manifest))
    preprocess = preprocess_for(order.config.backbone, order.config.image_size)
    waiting: deque[Future[Batch]] = deque()
    for images in _batches(order, source):
        waiting.append(readers.submit(_read, images, source, order, preprocess))
        if len(waiting) > order.config.readers:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


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


def _read(images: list[Image], source: ImageSource, order: ShardOrder, preprocess: Preprocess) -> Batch:
    begun = time.perf_counter()
    size = preprocess.image_size
    # Pinned memory lets the copy to a GPU run beside its work.
    pinned = torch.device(order.device).type == "cuda"
    pixels = torch.zeros((len(images), size, size, 3), dtype=torch.uint8, pin_memory=pinned).numpy()
    reasons = {}
    for slot, image in enumerate(images):
        key = image.place.key
        try:
            picture = source.read(image.place, decode_at_least=preprocess.decode_at_least)
        except UnreadableImage as error:
            reasons[image.row] = error.reason
            continue
        if order.augment is not None:
            picture = augment(picture, key=key, view=image.view, seed=order.seed, config=order.augment)
        pixels[slot] = preprocess(picture)
    return Batch(images, pixels, reasons, time.perf_counter() - begun)
