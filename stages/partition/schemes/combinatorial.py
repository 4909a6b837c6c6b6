"""Shifted grids whose intersections are the cells (Seo et al. 2018, CPlaNet).

There are k grids with squares of k x k cells, each shifted one cell north-east
of the one before. Together their borders are those of the cells, so one square
of each grid share exactly one cell: classes with the images of k x k cells
locate a photo to within one cell. CPlaNet draws its coarse classes at random
from adaptive cells; here they are squares.
"""

from __future__ import annotations

from stages.partition.cells import CellPartition
from stages.partition.cells import cut as cut_lattice
from stages.partition.config import PartitionConfig
from stages.partition.schemes.base import Images


def cut(images: Images, config: PartitionConfig) -> tuple[CellPartition, ...]:
    """Return the squares of each grid that keep enough images."""
    positions, grids = images.positions(), config.combinatorial.grids
    return tuple(
        cut_lattice(
            positions,
            cell_m=config.cell_m,
            groups_per_side=config.side,
            min_images=config.min_images_per_class,
            span=grids,
            offset=offset,
        )
        for offset in range(grids)
    )
