"""Which blocks of a store are in memory during a step: a pure function of seed and step.

While streaming, training holds one part of the store at a time: a few blocks drawn without replacement until
all have had their turn, then in another order. Within the part, batches are drawn as usual, so every image is
in memory once per epoch, for its share of the steps. Class-uniform sampling makes classes equally likely
within a part. A class with images in several parts is drawn in each of them, so large classes that spread
over many blocks weigh more: something between class- and image-uniform sampling. If rows are sorted by place,
as SF-XL's names are, most classes are in one block and nothing changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PartOrder:
    """The parts of an endless stream of epochs over a store's blocks."""

    blocks: int
    blocks_per_part: int
    steps_per_epoch: int
    seed: int

    @property
    def parts_per_epoch(self) -> int:
        """Number of parts; the last one may be smaller."""
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
