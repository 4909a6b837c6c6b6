"""Images of one chunk on their way to the backbone, and what reads them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cache.errors import PlacecacheError
from stages.extract.config import ExtractConfig
from stages.extract.plan import ShardOrder, view_name
from stages.images.augment import AugmentConfig, augment
from stages.images.gpu_jpeg import plain_jpeg
from stages.images.read import UnreadableImage, decode_image
from stages.index.manifest import Manifest
from stages.index.packs.reader import ImageLocation, ImageSource
from stages.models.backbones.backbone import preprocess_for


@dataclass(frozen=True)
class ImageRow:
    """One row to compute.

    Attributes
    ----------
    row : int
        Row of the store.
    place : ImageLocation
        Key of the image, and where it lies.
    view : int
        Number of the view; -1 for the image itself.
    """

    row: int
    place: ImageLocation
    view: int

    @property
    def name(self) -> str:
        """What identifies the row."""
        return self.place.key if self.view < 0 else view_name(self.place.key, self.view)


@dataclass
class ImageBatch:
    """Images of one chunk.

    Attributes
    ----------
    images : list of ImageRow
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

    images: list[ImageRow]
    pixels: Tensor
    jpegs: Tensor
    spans: dict[int, slice]
    reasons: dict[int, str]
    read_s: float

    def pin_memory(self) -> ImageBatch:
        """Move the pixels to where a copy to the GPU can run beside its work; called by the loader."""
        self.pixels = self.pixels.pin_memory()
        return self


class ImageReader(Dataset[ImageBatch | PlacecacheError]):
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

    def __getitem__(self, images: list[ImageRow]) -> ImageBatch | PlacecacheError:
        """Return a batch, or what stops the run: an error keeps its kind on its way between processes."""
        try:
            return self.read(images)
        except PlacecacheError as error:
            return error

    def read(self, images: list[ImageRow]) -> ImageBatch:
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
        return ImageBatch(
            images, torch.from_numpy(pixels), jpegs, spans, reasons, time.perf_counter() - begun
        )

    def _read(self, image: ImageRow) -> bytes | npt.NDArray[np.uint8]:
        """Return an image's pixels, or the file itself where the GPU is to decode it."""
        source, place, preprocess = self.source, image.place, self.preprocess
        if self.views is None and self.config.decoder == "nvjpeg":
            content = source.content(place)
            if plain_jpeg(content, preprocess):
                return content
            path = source.manifest.image_path(place.key)
            return preprocess(decode_image(content, path, decode_at_least=preprocess.decode_at_least))
        picture = source.read(place, decode_at_least=preprocess.decode_at_least)
        if self.views is not None:
            picture = augment(picture, key=place.key, view=image.view, seed=self.seed, config=self.views)
        return preprocess(picture)
