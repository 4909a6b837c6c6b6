"""Classes from positions: the squares with enough images, and the class of every image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.errors import InputError
from stages.partition import grid

BLOCK_ROWS = 1 << 20
DENSE_CELLS = 1 << 26  # up to this many squares in the box are counted in a table, more by sorting

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CellPartition:
    """The classes of one partition, sorted by (group, p, q, heading), and the class of every image.

    Attributes
    ----------
    cells
        (K, 2) int64, p and q of the cell in the south-west corner of each class.
    span
        (K,) int64, side of each class in cells.
    group, images
        (K,) int32 and (K,) int64.
    labels
        (rows,) int32, class of each row, -1 for none.
    heading
        (K,) int64, heading bin; None if a class covers all headings.
    """

    cells: npt.NDArray[np.int64]
    span: npt.NDArray[np.int64]
    group: npt.NDArray[np.int32]
    images: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    heading: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Lattice:
    """Adjacent squares of `span` cells a side, numbered over the box around all images.

    The lattice is shifted by `offset` cells north and east. `low` (2,) is the south-western square
    of the box and `height` its number of squares from south to north.
    """

    span: int
    offset: int
    low: npt.NDArray[np.int64]
    height: int

    def squares(self, codes: Codes) -> npt.NDArray[np.int64]:
        """Return the (n, 2) squares of codes, counted from the lattice's origin."""
        return np.stack(np.divmod(codes, self.height), axis=1) + self.low

    def corners(self, squares: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return (n, 2) p and q of the cell in the south-west corner of each square."""
        return squares * self.span + self.offset


def cut(
    positions: grid.Positions,
    *,
    cell_m: float,
    groups_per_side: int,
    min_images: int,
    span: int = 1,
    offset: int = 0,
) -> CellPartition:
    """Return the squares of a lattice that keep at least `min_images` images, as classes (4.1 to 4.5).

    Parameters
    ----------
    positions
        (rows, 2) UTM east and north in metres.
    cell_m, groups_per_side, min_images
        M, N and the least number of images of a class.
    span, offset
        Side of the squares and shift of the lattice, in cells.

    Raises
    ------
    InputError
        If no square keeps enough images.
    """
    codes, lattice = code(positions, cell_m, span, offset)
    counted = count(codes, min_images)
    require_class(len(counted.kept), counted.most, span * cell_m, min_images)
    squares = lattice.squares(counted.kept)
    return numbered(
        len(codes),
        lambda rows: counted.place_of(codes[rows]),
        cells=lattice.corners(squares),
        span=np.full(len(squares), span),
        group=grid.group_of(squares, groups_per_side),
        images=counted.images,
    )


def code(positions: grid.Positions, cell_m: float, span: int = 1, offset: int = 0) -> tuple[Codes, Lattice]:
    """Return each row's square as one number, (p - p0) * height + (q - q0), and the lattice."""
    corners = np.stack([positions.min(axis=0), positions.max(axis=0)])
    low, high = _squares(corners, cell_m, span, offset)
    lattice = Lattice(span, offset, low, int(high[1] - low[1]) + 1)
    codes = np.empty(len(positions), np.int64)
    for rows in blocks(len(positions)):
        p, q = (_squares(positions[rows], cell_m, span, offset) - low).T
        codes[rows] = p * lattice.height + q
    return codes, lattice


def _squares(positions: grid.Positions, cell_m: float, span: int, offset: int) -> npt.NDArray[np.int64]:
    # Through the cells, so that rounding cannot put part of a cell in another square.
    cells = grid.cells(positions, cell_m)
    return cells if span == 1 and offset == 0 else (cells - offset) // span


class Counted:
    """The codes with enough images, ascending, with their counts and the largest count of any code.

    `span`, one more than the largest code, is given if a table of all codes fits in memory.
    """

    def __init__(self, kept: Codes, images: npt.NDArray[np.int64], most: int, span: int | None) -> None:
        self.kept, self.images, self.most = kept, images, most
        self._table: npt.NDArray[np.int32] | None = None
        if span is not None:
            self._table = np.full(span, -1, np.int32)
            self._table[kept] = np.arange(len(kept))

    def place_of(self, codes: Codes) -> npt.NDArray[np.int64] | npt.NDArray[np.int32]:
        """Return the index of each code among the kept ones, -1 if it is not kept."""
        if self._table is not None:
            return self._table[codes]
        places = np.minimum(np.searchsorted(self.kept, codes), len(self.kept) - 1)
        return np.where(self.kept[places] == codes, places, -1)


def count(codes: Codes, min_images: int) -> Counted:
    """Return the codes that occur at least `min_images` times."""
    span = int(codes.max()) + 1
    if span <= DENSE_CELLS:
        table = np.zeros(span, np.int32)
        for rows in blocks(len(codes)):
            if span <= BLOCK_ROWS:
                table += np.bincount(codes[rows], minlength=span).astype(np.int32)
            else:  # a second table of all codes for every block would take more time and memory
                of_block, times = np.unique(codes[rows], return_counts=True)
                table[of_block] += times.astype(np.int32)
        kept = np.flatnonzero(table >= min_images)
        return Counted(kept, table[kept].astype(np.int64), int(table.max()), span)
    distinct, counts = np.unique(codes, return_counts=True)
    enough = counts >= min_images
    return Counted(distinct[enough], counts[enough], int(counts.max()), None)


def require_class(classes: int, most: int, side_m: float, min_images: int) -> None:
    """Raise InputError if there is no class; the message states the images of the fullest cell."""
    if not classes:
        raise InputError(
            f"no cell of {side_m:g} m keeps {min_images} images, the fullest holds {most}: "
            "raise partition.cell_m or lower partition.min_images_per_class"
        )


def numbered(
    rows: int,
    place_of: Callable[[slice], npt.NDArray[np.int64] | npt.NDArray[np.int32]],
    *,
    cells: npt.NDArray[np.int64],
    span: npt.NDArray[np.int64],
    group: npt.NDArray[np.int64],
    images: npt.NDArray[np.int64],
    heading: npt.NDArray[np.int64] | None = None,
) -> CellPartition:
    """Return classes in any order as a partition, sorted by (group, p, q, heading).

    Parameters
    ----------
    rows
        Number of images.
    place_of
        Maps a block of rows to the indices of their classes in the arrays below, -1 for none.
    cells, span, group, images, heading
        As in `CellPartition`, class by class.
    """
    bins = np.zeros(len(cells), np.int64) if heading is None else heading
    order = np.lexsort((bins, cells[:, 1], cells[:, 0], group))
    class_of = np.empty(len(order) + 1, np.int32)
    class_of[order] = np.arange(len(order))
    class_of[-1] = -1
    labels = np.empty(rows, np.int32)
    for block in blocks(rows):
        labels[block] = class_of[place_of(block)]
    sorted_heading = None if heading is None else heading[order]
    return CellPartition(
        cells[order], span[order], group[order].astype(np.int32), images[order], labels, sorted_heading
    )


def blocks(rows: int) -> list[slice]:
    """Return slices of bounded length that cover all rows."""
    return [slice(first, min(first + BLOCK_ROWS, rows)) for first in range(0, rows, BLOCK_ROWS)]
