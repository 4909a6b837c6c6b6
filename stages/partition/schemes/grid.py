"""Squares of one size (Trivigno et al. 2023, Divide&Classify)."""

from __future__ import annotations

from stages.partition.cells import CellPartition
from stages.partition.cells import cut as cut_lattice
from stages.partition.config import PartitionConfig
from stages.partition.schemes.base import Images


def cut(images: Images, config: PartitionConfig) -> tuple[CellPartition]:
    """Return the single partition: cells with enough images (4.1 to 4.5)."""
    return (
        cut_lattice(
            images.positions(),
            cell_m=config.cell_m,
            groups_per_side=config.side,
            min_images=config.min_images_per_class,
        ),
    )
