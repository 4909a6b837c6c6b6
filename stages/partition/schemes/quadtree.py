"""Adaptive cells: larger where images are rare (Weyand et al. 2016, PlaNet).

A square with more than `max_images` images is split in four, down to the side of
one cell. A leaf with enough images is a class, and its answer is its centre.
PlaNet has a single softmax over all classes, which is `groups_per_side: 1`. With
more groups, the group of a class is that of its square among squares of its own
size, so neighbours of another size may share it.
"""

from __future__ import annotations

import numpy as np

from stages.partition import grid
from stages.partition.cells import CellPartition, code, count, numbered, require_class
from stages.partition.config import PartitionConfig
from stages.partition.schemes.base import Images


def cut(images: Images, config: PartitionConfig) -> tuple[CellPartition]:
    """Return the single partition: leaves of the tree with enough images."""
    positions = images.positions()
    places = np.full(len(positions), -1, np.int32)
    cells, spans, groups, counts = [], [], [], []
    rows, classes, most = np.arange(len(positions)), 0, 0
    for level in range(config.quadtree.levels, -1, -1):
        span = 1 << level
        codes, lattice = code(positions[rows], config.cell_m, span)
        counted = count(codes, 1)
        leaf = (counted.images <= config.quadtree.max_images) | (level == 0)
        kept = leaf & (counted.images >= config.min_images_per_class)
        squares = lattice.squares(counted.kept[kept])
        cells.append(lattice.corners(squares))
        spans.append(np.full(len(squares), span))
        groups.append(grid.group_of(squares, config.side))
        counts.append(counted.images[kept])
        number = np.full(len(leaf), -1, np.int32)
        number[kept] = classes + np.arange(len(squares))
        square = counted.place_of(codes)
        places[rows] = number[square]
        classes, most = classes + len(squares), max(most, int(counted.images[leaf].max(initial=0)))
        rows = rows[~leaf[square]]
        if not len(rows):
            break
    require_class(classes, most, config.cell_m, config.min_images_per_class)
    return (
        numbered(
            len(places),
            lambda block: places[block],
            cells=np.concatenate(cells),
            span=np.concatenate(spans),
            group=np.concatenate(groups),
            images=np.concatenate(counts),
        ),
    )
