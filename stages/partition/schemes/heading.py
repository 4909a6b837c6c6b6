"""Classes of cell and heading (Berton et al. 2022, CosPlace).

Photos of one place in different directions show different things, so each
heading bin of a cell is a class. Groups separate neighbours in space (N) and
in heading (L): group (u * N + v) * L + w, with w the bin mod L. An answer is a
cell; its score is that of its best class. CosPlace's bins start at north; here
north is the middle of a bin, because in cities with north-south streets many
headings are close to north and would fall on both sides of such a border.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stages.errors import InputError
from stages.partition import grid
from stages.partition.cells import CellPartition, blocks, code, count, numbered, require_class
from stages.partition.config import PartitionConfig
from stages.partition.schemes.base import Images


def cut(images: Images, config: PartitionConfig) -> tuple[CellPartition]:
    """Return the single partition: the heading bins of cells with enough images.

    Raises
    ------
    InputError
        If an image has no heading, or no class keeps enough images.
    """
    headings, bins = _headings(images), config.heading.bins
    codes, lattice = code(images.positions(), config.cell_m)
    for block in blocks(len(codes)):
        turn = headings[block].astype(np.float64) / config.heading.bin_deg
        # The remainder comes last, so that headings just below 360 join the first bin.
        codes[block] = codes[block] * bins + np.floor(turn + 0.5).astype(np.int64) % bins
    counted = count(codes, config.min_images_per_class)
    require_class(len(counted.kept), counted.most, config.cell_m, config.min_images_per_class)
    square, heading = np.divmod(counted.kept, bins)
    squares, groups = lattice.squares(square), config.heading.groups
    return (
        numbered(
            len(codes),
            lambda rows: counted.place_of(codes[rows]),
            cells=lattice.corners(squares),
            span=np.ones(len(squares), np.int64),
            group=grid.group_of(squares, config.side) * groups + heading % groups,
            images=counted.images,
            heading=heading,
        ),
    )


def _headings(images: Images) -> npt.NDArray[np.floating]:
    headings: npt.NDArray[np.floating] = images.column("heading")
    missing = ~np.isfinite(headings)
    if missing.any():
        raise InputError(
            f"{int(missing.sum()):,} of {len(headings):,} images have no heading (the first is row "
            f"{int(missing.argmax())}), which partition.scheme heading needs of each: give the headings "
            "in the source and run `pipeline index`, or set partition.scheme to grid"
        )
    return headings
