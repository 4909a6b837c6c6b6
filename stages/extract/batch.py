"""A batch of images of one chunk: read from files, then moved to the device or decoded on it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cache.errors import PlacecacheError
from stages.extract.plan import ShardOrder
from stages.extract.row_identity import view_name
from stages.images.augment import AugmentConfig, augment
from stages.images.gpu_jpeg import decode_batch, plain_jpeg
from stages.images.preprocess import Preprocess
from stages.images.read import UnreadableImage, decode_image
from stages.index.manifest import Manifest
from stages.index.packs.reader import ImageLocation, ImageSource


@dataclass(frozen=True)
class ImageRow:
    """One row of the store to compute: an image, or with `view` >= 0 a view of it."""

    row: int
    location: ImageLocation
    view: int

    @property
    def name(self) -> str:
        """Name that identifies the row."""
        return self.location.key if self.view < 0 else view_name(self.location.key, self.view)


@dataclass
class ImageBatch:
    """Images of one chunk.

    Attributes
    ----------
    images : list of ImageRow
        The rows.
    pixels : Tensor, (B, S, S, 3) uint8
        Preprocessed pixels; of length 0 if the GPU decodes all images. Unreadable images stay black
        and their features are dropped later, so that every other image keeps its place in the batch.
    jpegs : Tensor, (bytes,) uint8
        JPEG files for the GPU to decode, one after the other.
    spans : dict of int to slice
        Position in the batch -> bytes of its file in `jpegs`.
    reasons : dict of int to str
        Row -> why it is unreadable.
    read_s : float
        Seconds that reading took.
    """

    images: list[ImageRow]
    pixels: Tensor
    jpegs: Tensor
    spans: dict[int, slice]
    reasons: dict[int, str]
    read_s: float

    def pin_memory(self) -> ImageBatch:
        """Pin the pixels, so that their copy to a GPU overlaps its work; called by PyTorch's loader."""
        self.pixels = self.pixels.pin_memory()
        return self


@dataclass(frozen=True)
class ImageReader(Dataset[ImageBatch | PlacecacheError]):
    """Reads batches of a manifest's images; with `nvjpeg` it leaves plain JPEGs for the GPU to decode."""

    manifest: Path
    preprocess: Preprocess
    augment: AugmentConfig | None
    seed: int
    nvjpeg: bool

    @classmethod
    def of(cls, order: ShardOrder) -> ImageReader:
        """Return the reader of an order."""
        # Views are augmented by Pillow, so a GPU cannot decode them.
        nvjpeg = order.config.decoder == "nvjpeg" and order.augment is None
        return cls(order.manifest, order.preprocess, order.augment, order.seed, nvjpeg)

    def __getstate__(self) -> dict[str, object]:
        """Leave out open files: each process opens its own."""
        return {name: value for name, value in vars(self).items() if name != "source"}

    @cached_property
    def source(self) -> ImageSource:
        """Files or packs of the images."""
        return ImageSource(Manifest.open(self.manifest))

    def __getitem__(self, images: list[ImageRow]) -> ImageBatch | PlacecacheError:
        """Return a batch, or the error that stops the run: raised in a process it would lose its type."""
        try:
            return self.read(images)
        except PlacecacheError as error:
            return error

    def read(self, images: list[ImageRow]) -> ImageBatch:
        """Return the batch of some images."""
        started, size = time.perf_counter(), self.preprocess.image_size
        pixels, files = np.empty((0, size, size, 3), np.uint8), bytearray()
        spans: dict[int, slice] = {}
        reasons: dict[int, str] = {}
        for position, image in enumerate(images):
            try:
                content = self._read(image)
            except UnreadableImage as error:
                reasons[image.row] = error.reason
                continue
            if isinstance(content, bytes):
                spans[position] = slice(len(files), len(files) + len(content))
                files += content
                continue
            if not len(pixels):
                pixels = np.zeros((len(images), size, size, 3), np.uint8)
            pixels[position] = content
        # Tensors pass between processes in shared memory, arrays would be copied.
        jpegs = torch.frombuffer(files, dtype=torch.uint8) if files else torch.empty(0, dtype=torch.uint8)
        read_s = time.perf_counter() - started
        return ImageBatch(images, torch.from_numpy(pixels), jpegs, spans, reasons, read_s)

    def _read(self, image: ImageRow) -> bytes | npt.NDArray[np.uint8]:
        """Return an image's preprocessed pixels, or its file if the GPU decodes it."""
        location, preprocess = image.location, self.preprocess
        if self.nvjpeg:
            content = self.source.content(location)
            if plain_jpeg(content, preprocess):
                return content
            path = self.source.manifest.image_path(location.key)
            return preprocess(decode_image(content, path, decode_at_least=preprocess.decode_at_least))
        picture = self.source.read(location, decode_at_least=preprocess.decode_at_least)
        if self.augment is not None:
            picture = augment(picture, key=location.key, view=image.view, seed=self.seed, config=self.augment)
        return preprocess(picture)


def upload(
    batches: Iterable[ImageBatch], preprocess: Preprocess, device: torch.device
) -> Iterator[tuple[ImageBatch, Tensor]]:
    """Yield batches with their pixels (B, S, S, 3) uint8 on the device.

    On a GPU the copy runs on a stream of its own, while the previous batch is computed. Use the
    pixels only in work that is queued on the current stream afterwards.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch, pixels_on(device, batch, preprocess)
        return
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for batch in batches:
        with torch.cuda.stream(copying):
            pixels = pixels_on(device, batch, preprocess)
        current = torch.cuda.current_stream(device)
        current.wait_stream(copying)
        pixels.record_stream(current)
        yield batch, pixels


def pixels_on(device: torch.device, batch: ImageBatch, preprocess: Preprocess) -> Tensor:
    """Return a batch's pixels (B, S, S, 3) uint8 on a device, which decodes the batch's JPEGs.

    Pillow tries files that the device cannot decode; if it fails too, the batch's `reasons` say why.
    """
    if not batch.spans:
        return batch.pixels.to(device, non_blocking=True)
    size = preprocess.image_size
    pixels = torch.zeros((len(batch.images), size, size, 3), dtype=torch.uint8, device=device)
    if len(batch.pixels):
        pixels.copy_(batch.pixels, non_blocking=True)
    files = {position: batch.jpegs[span] for position, span in batch.spans.items()}
    for position in decode_batch(files, preprocess, pixels):
        image, content = batch.images[position], files[position].numpy().tobytes()
        try:
            path = Path(image.location.key)
            picture = decode_image(content, path, decode_at_least=preprocess.decode_at_least)
            pixels[position] = torch.from_numpy(preprocess(picture)).to(device)
        except UnreadableImage as error:
            batch.reasons[image.row] = error.reason
    return pixels
