"""Where steps get their images: from memory, or from a store that is read part by part."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from stages.models.backbones.spec import split_blocks
from stages.models.heads.margin_loss import Buffers
from stages.partition.classes import ClassTable
from stages.train.config import TrainConfig
from stages.train.data.load import Rows
from stages.train.data.samplers import ClassImages, GroupSampler
from stages.train.data.schedule import Schedule
from stages.train.data.source import FeatureSource, TrainingSet
from stages.train.data.streaming import PartOrder

_PART_BYTES = 2 << 30
"""Approximate size of a part whose rows hold a tensor for a tail, two hundred times a pooled feature."""


@dataclass(frozen=True)
class Part:
    """Images in memory, the samplers of the groups that they cover, and whose turn it is at a step."""

    data: TrainingSet
    samplers: dict[int, GroupSampler]
    schedule: Schedule


Make = Callable[[TrainingSet], Part]


class ResidentFeed:
    """All images in one part, in memory from the start."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def at(self, step: int) -> Part:
        """Return the part that a step draws from."""
        return self.part


class StreamedFeed:
    """One part of the store at a time, while a thread of `pool` reads the next one.

    `order` tells which blocks make a part, and `make` turns the features read into one.
    """

    def __init__(self, source: FeatureSource, order: PartOrder, make: Make, pool: ThreadPoolExecutor) -> None:
        self.source, self.order, self.make, self._pool = source, order, make, pool
        self._ranges: list[Rows] = list(source.reader.blocks())
        self._number = -1
        self._part: Part | None = None
        self._coming: dict[int, Future[Part]] = {}
        self._buffers = (Buffers(), Buffers())

    def at(self, step: int) -> Part:
        """Return the part that a step draws from."""
        number = self.order.part_of(step)
        if self._part is None or number != self._number:
            self._part = None
            self._part, self._number = self._fetch(number), number
        return self._part

    def _fetch(self, number: int) -> Part:
        coming = self._coming.pop(number, None) or self._pool.submit(self._read, number)
        part = coming.result()
        # It is read into the memory of the part before this one: there are only two buffers.
        self._coming = {number + 1: self._pool.submit(self._read, number + 1)}
        return part

    def _read(self, number: int) -> Part:
        ranges = [self._ranges[block] for block in self.order.blocks_of(number)]
        return self.make(self.source.read(ranges, torch.device("cpu"), self._buffers[number % 2]))


Feed = ResidentFeed | StreamedFeed


def schedule_of(
    config: TrainConfig, source: FeatureSource, classes: ClassTable, groups: tuple[int, ...]
) -> Schedule:
    """Return the schedule of the groups that have images of at least two classes."""
    labels = source.labels[source.rows]
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    images = {group: counts[classes.group_slice(group)] for group in groups}
    learnable = tuple(group for group in groups if np.count_nonzero(images[group]) > 1)
    totals = [int(images[group].sum()) for group in learnable]
    return Schedule(config.schedule, config.turn, learnable, totals, config.batch_size)


@contextmanager
def open_feed(
    config: TrainConfig,
    source: FeatureSource,
    resident: TrainingSet | None,
    classes: ClassTable,
    groups: tuple[int, ...],
    steps_per_epoch: int,
    seed: int,
) -> Iterator[Feed]:
    """Yield the feed of the groups' batches: resident if all features are in memory, otherwise streamed.

    `steps_per_epoch` are the steps that draw as many images as the store has.
    """

    def make(data: TrainingSet) -> Part:
        return _part(config, classes, groups, data, seed)

    if resident is not None:
        yield ResidentFeed(make(resident))
        return
    order = _order_of_parts(config, source, steps_per_epoch, seed)
    with ThreadPoolExecutor(1) as pool:
        yield StreamedFeed(source, order, make, pool)


def _order_of_parts(config: TrainConfig, source: FeatureSource, steps_per_epoch: int, seed: int) -> PartOrder:
    """Return the order of parts, each with the configured number of rows, or fewer where rows are long.

    It depends on settings and stores only, so that all processes of a run use the same order.
    """
    blocks = len(list(source.reader.blocks()))
    per_part = config.stream_rows // source.reader.chunk_rows
    if any(split_blocks(name) is not None for name in source.inputs):
        per_part = min(per_part, _PART_BYTES * blocks // max(1, source.stored_bytes))
    # At most as many parts as steps: each part serves at least one step an epoch.
    return PartOrder(blocks, max(1, per_part, math.ceil(blocks / steps_per_epoch)), steps_per_epoch, seed)


def _part(
    config: TrainConfig, classes: ClassTable, groups: tuple[int, ...], data: TrainingSet, seed: int
) -> Part:
    class_images = ClassImages(data.classes, len(classes), classes.p_aug, data.view_images)
    samplers = {
        group: GroupSampler(
            class_images,
            classes.group_slice(group),
            sampling=config.sampling,
            augment=len(data.view_images) > 0,
            class_sampling=config.class_sampling,
            mix_views=config.mix_views,
            seed=(seed, group),
        )
        for group in groups
    }
    samplers = {group: sampler for group, sampler in samplers.items() if len(sampler.classes)}
    images = [sampler.images for sampler in samplers.values()]
    return Part(
        data, samplers, Schedule(config.schedule, config.turn, list(samplers), images, config.batch_size)
    )
