"""Features to train on: in the store, and in memory in the store's dtype (float16)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.reader import FeatureReader
from stages.models.heads.margin_loss import Buffers
from stages.partition.classes import in_class
from stages.partition.views import ViewPlan
from stages.train.data.load import Checked, Rows, load_rows
from stages.train.data.samplers import BatchIndices

Block = tuple[Tensor, npt.NDArray[np.int64]]
"""Features (n, F) and the class id of each, (n,) or (n, P)."""
_BLOCK_ROWS = 8192


@dataclass(frozen=True)
class TrainingSet:
    """Images to train on and their views, in memory.

    Attributes
    ----------
    features : Tensor
        Of the images, shape (n, F), in the store's dtype.
    classes : ndarray of int64, shape (n,) or (n, P)
        Class id of each image; in each of P partitions where there are several, -1 for none.
    views : Tensor
        Features of the views, shape (V, F).
    view_images : ndarray of int64, shape (V,)
        Image that each view belongs to, ascending.
    """

    features: Tensor
    classes: npt.NDArray[np.int64]
    views: Tensor
    view_images: npt.NDArray[np.int64]

    def of(self, batch: BatchIndices, device: torch.device, buffers: Buffers | None = None) -> Tensor:
        """Return the features of a batch on the device, images first, then views: (B + A, F) float32.

        They are in the buffers, if given, until the next call overwrites them.
        """
        buffers, images = buffers or Buffers(), len(batch.images)
        shape = (images + len(batch.views), self.features.shape[1])
        joined = buffers.take("batch", shape, torch.empty(0, device=device), torch.float32)
        joined[:images].copy_(_rows(self.features, batch.images, device, buffers))
        if len(batch.views):
            joined[images:].copy_(_rows(self.views, batch.views, device, buffers))
        return joined

    def blocks(self, sample: int | None = None) -> Iterator[Block]:
        """Yield features and classes block by block, of all rows or of about `sample` evenly spread ones."""
        # Evenly, because neighbouring rows are neighbouring photos.
        stride = max(1, len(self.classes) // sample) if sample else 1
        features, classes = self.features[::stride], self.classes[::stride]
        for start in range(0, len(classes), _BLOCK_ROWS):
            yield features[start : start + _BLOCK_ROWS], classes[start : start + _BLOCK_ROWS]


def _rows(features: Tensor, rows: npt.NDArray[np.int64], device: torch.device, buffers: Buffers) -> Tensor:
    index = torch.from_numpy(rows).to(features.device, non_blocking=True)
    if features.device == device:
        kept = buffers.take("rows", (len(rows), features.shape[1]), features, features.dtype)
        return torch.index_select(features, 0, index, out=kept)
    # Pinned memory, so that the copy to the device is asynchronous.
    staged = torch.empty(len(rows), features.shape[1], dtype=features.dtype, pin_memory=True)
    return torch.index_select(features, 0, index, out=staged).to(device, non_blocking=True)


@dataclass(frozen=True)
class FeatureSource:
    """The rows of a store to train on, and their views.

    Attributes
    ----------
    reader : FeatureReader
        Store of the database.
    inputs : tuple of str
        Outputs joined into a feature.
    labels : ndarray of int32, shape (rows,) or (rows, P)
        Class id of each row in each partition, -1 for none.
    rows : ndarray of bool, shape (rows,)
        Rows to train on; none of them is bad.
    view_reader : FeatureReader or None
        Store of the views; None for no augmentation.
    plan : ViewPlan or None
        The row that each view shows.
    checked : tuple of Checked
        What is known to be sound of images and of views, so that each block is checked once.
    """

    reader: FeatureReader
    inputs: tuple[str, ...]
    labels: npt.NDArray[np.int32]
    rows: npt.NDArray[np.bool_]
    view_reader: FeatureReader | None
    plan: ViewPlan | None
    checked: tuple[Checked, Checked] = field(init=False, default_factory=lambda: (set(), set()))

    def of_classes(self, classes: npt.NDArray[np.bool_]) -> FeatureSource:
        """Return the same with only the images of the marked classes, shape (K,)."""
        return dataclasses.replace(self, rows=self.rows & in_class(self.labels, classes))

    @cached_property
    def view_rows(self) -> npt.NDArray[np.bool_]:
        """Good views of the images trained on, a mask of shape (V,)."""
        if self.view_reader is None or self.plan is None:
            return np.zeros(0, np.bool_)
        return self.view_reader.valid & self.rows[self.plan.row]

    @property
    def images(self) -> int:
        """Number of images to train on."""
        return int(self.rows.sum())

    @property
    def views(self) -> int:
        """Number of views that can join them."""
        return int(self.view_rows.sum())

    @property
    def bytes(self) -> int:
        """Bytes of all of them."""
        return (self.images + self.views) * self._row_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes of all rows of the stores, trained on or not."""
        views = 0 if self.view_reader is None else self.view_reader.rows
        return (self.reader.rows + views) * self._row_bytes

    @property
    def _row_bytes(self) -> int:
        itemsize: int = np.dtype(self.reader.recipe.dtype).itemsize
        return self.reader.length(self.inputs) * itemsize

    def read(
        self, ranges: Sequence[Rows], place: torch.device, buffers: Buffers | None = None
    ) -> TrainingSet:
        """Return the images of some ranges of rows, ascending, with their views.

        They are in the buffers, if given, until the next call overwrites them.

        Raises
        ------
        StoreError
            If they do not fit in memory.
        """
        ranges = sorted(ranges)
        features = load_rows(self.reader, self.rows, self.inputs, place, ranges, buffers, self.checked[0])
        kept = np.concatenate([start + np.flatnonzero(self.rows[start:stop]) for start, stop in ranges])
        views, view_images = features[:0], np.zeros(0, np.int64)
        if self.view_reader is not None and self.plan is not None:
            spans = [self._view_span(start, stop) for start, stop in ranges]
            views = load_rows(
                self.view_reader, self.view_rows, self.inputs, place, spans, buffers, self.checked[1]
            )
            shown = [self.plan.row[a:b][self.view_rows[a:b]] for a, b in spans]
            view_images = np.searchsorted(kept, np.concatenate(shown))
        return TrainingSet(features, self.labels[kept].astype(np.int64), views, view_images)

    def _view_span(self, start: int, stop: int) -> Rows:
        first, last = np.searchsorted(self.plan.row, [start, stop]) if self.plan else (0, 0)
        return int(first), int(last)

    def blocks(self, sample: int | None = None) -> Iterator[Block]:
        """Yield features and classes chunk by chunk, of all chunks or of evenly spread ones."""
        ranges = list(self.reader.blocks())
        stride = max(1, self.reader.rows // sample) if sample else 1
        for start, stop in ranges[:: min(stride, len(ranges))]:
            keep = self.rows[start:stop]
            if keep.any():
                block = self.reader.read(start, stop, self.inputs)[keep]
                yield torch.from_numpy(block), self.labels[start:stop][keep].astype(np.int64)
