"""Which blocks of a store are in memory during a step: pure and seeded, decided without reading.

A streamed training holds a part of the store at a time: a few blocks of
neighbouring rows, drawn without replacement until all have had their turn,
then in another order. Within the part, batches are drawn exactly as they are
when everything is resident. So in every epoch each image waits in memory once,
for its share of the steps, and what changes is this: with class-uniform
sampling, classes are equally likely within a part. A class whose images
lie in several parts is drawn in each of them, so large classes spread over
many blocks weigh more, which lies between class- and image-uniform sampling.
Where rows are sorted by place, as SF-XL's names are, most classes lie in one
block and nothing changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PartOrder:
    """The parts of an endless stream of epochs.

    Attributes
    ----------
    blocks : int
        Blocks of the store.
    blocks_per_part : int
        Blocks in memory at a time.
    steps_per_epoch : int
        Steps that draw as many images as there are.
    seed : int
        Another seed is another order.
    """

    blocks: int
    blocks_per_part: int
    steps_per_epoch: int
    seed: int

    @property
    def parts_per_epoch(self) -> int:
        """How many parts make up the store; the last one may be smaller."""
        return math.ceil(self.blocks / self.blocks_per_part)

    def part_of(self, step: int) -> int:
        """Return the number of the part that a step draws from; steps count from 1."""
        epoch, within = divmod(step - 1, self.steps_per_epoch)
        return epoch * self.parts_per_epoch + within * self.parts_per_epoch // self.steps_per_epoch

    def blocks_of(self, part: int) -> list[int]:
        """Return the blocks of a part, ascending."""
        epoch, within = divmod(part, self.parts_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.blocks)
        return sorted(order[within * self.blocks_per_part : (within + 1) * self.blocks_per_part].tolist())
