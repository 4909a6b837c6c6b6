"""Nested grids of several sizes (Mueller-Budack et al. 2018, HGE).

An image has a class in each grid. At inference the probabilities of a cell and
of the squares that contain it are multiplied, so that the easier coarse decision
corrects the harder fine one. HGE's cells are adaptive; here they are squares.
"""

from __future__ import annotations

from stages.partition.cells import CellPartition
from stages.partition.cells import cut as cut_lattice
from stages.partition.config import PartitionConfig
from stages.partition.schemes.base import Images


def cut(images: Images, config: PartitionConfig) -> tuple[CellPartition, ...]:
    """Return the cells with enough images, then the squares of each coarser grid."""
    positions = images.positions()
    return tuple(
        cut_lattice(
            positions,
            cell_m=config.cell_m,
            groups_per_side=config.side,
            min_images=config.min_images_per_class,
            span=span,
        )
        for span in (1, *config.hierarchy.coarser)
    )
