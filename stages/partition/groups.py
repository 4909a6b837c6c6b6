"""The number of groups: how many classes share one softmax.

Groups keep neighbouring cells out of each other's softmax and divide its cost. Up to 2,000 classes one group
places more photos correctly than several (docs/experiments.md, "Where several groups begin to pay"). Its cost
grows with the square of the city: both the classes that a step compares and the number of steps grow. `auto`
therefore cuts more groups only where one would hold more than `CLASSES_PER_GROUP` classes.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from stages.partition.cells import CellPartition
from stages.partition.config import PartitionConfig
from stages.partition.schemes.base import Images
from stages.partition.schemes.registry import SCHEMES

CLASSES_PER_GROUP = 10_000
"""With 10,000 classes a pass takes half an hour of one CPU core, with 30,000 four hours."""
MOST_PER_SIDE = 5
"""N of D&C for 41 million images."""


def cut_into_groups(
    images: Images, config: PartitionConfig
) -> tuple[tuple[CellPartition, ...], PartitionConfig]:
    """Cut the city by the configured scheme; return its partitions, and the settings with N as a number."""
    cut = SCHEMES[config.scheme]
    cuts = cut(images, config)
    if config.groups_per_side != "auto":
        return cuts, config
    side = groups_per_side_for(max(int(np.bincount(part.group).max()) for part in cuts))
    config = replace(config, groups_per_side=side)
    if side > 1:
        del cuts  # their labels take 4 bytes per image and partition
        cuts = cut(images, config)
    return cuts, config


def groups_per_side_for(classes: int) -> int:
    """Return N for a partition whose largest group holds this many classes when N is 1."""
    return min(MOST_PER_SIDE, math.ceil(math.sqrt(classes / CLASSES_PER_GROUP)))
