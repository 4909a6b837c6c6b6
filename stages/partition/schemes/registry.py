"""The schemes by their names in `partition.scheme`."""

from __future__ import annotations

from collections.abc import Callable

from stages.partition.cells import CellPartition
from stages.partition.config import PartitionConfig, Scheme
from stages.partition.schemes import combinatorial, grid, heading, hierarchy, quadtree
from stages.partition.schemes.base import Images

SCHEMES: dict[Scheme, Callable[[Images, PartitionConfig], tuple[CellPartition, ...]]] = {
    "grid": grid.cut,
    "quadtree": quadtree.cut,
    "hierarchy": hierarchy.cut,
    "combinatorial": combinatorial.cut,
    "heading": heading.cut,
}
"""Each maps images and settings to one or more partitions, finest first; the first sets the view plan."""
