"""Positions -> classes: which cells keep enough images, and the class of every image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages import grid
from stages.errors import InputError

BLOCK_ROWS = 1 << 20
DENSE_CELLS = 1 << 26  # a box of so many cells is counted in a table, a larger one by sorting

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cut:
    """The classes, sorted by (group, p, q), and who belongs to them.

    Attributes
    ----------
    cells
        (K, 2) int64, p and q.
    group
        (K,) int32.
    images
        (K,) int64.
    labels
        (rows,) int32, class of each row, -1 for none.
    """

    cells: npt.NDArray[np.int64]
    group: npt.NDArray[np.int32]
    images: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]


def cut(positions: grid.Positions, *, cell_m: float, groups_per_side: int, min_images: int) -> Cut:
    """Return the cells that keep at least `min_images` images, as classes (4.1 to 4.5).

    Parameters
    ----------
    positions
        (rows, 2) UTM east and north in metres.
    cell_m, groups_per_side, min_images
        M, N and the least number of images of a class.

    Raises
    ------
    InputError
        If no cell keeps enough images.
    """
    codes, origin, height = _codes(positions, cell_m)
    kept, images, most, lookup = _count(codes, min_images)
    if not len(kept):
        raise InputError(
            f"no cell of {cell_m:g} m keeps {min_images} images, the fullest holds {most}: "
            "raise partition.cell_m or lower partition.min_images_per_class"
        )
    cells = np.stack(np.divmod(kept, height), axis=1) + origin
    group = grid.group_of(cells, groups_per_side).astype(np.int32)
    order = np.lexsort((cells[:, 1], cells[:, 0], group))
    class_of = np.empty(len(order) + 1, np.int32)
    class_of[order] = np.arange(len(order))
    class_of[-1] = -1
    labels = np.empty(len(codes), np.int32)
    for rows in _blocks(len(codes)):
        labels[rows] = class_of[lookup(codes[rows])]
    return Cut(cells[order], group[order], images[order], labels)


def _codes(positions: grid.Positions, cell_m: float) -> tuple[Codes, npt.NDArray[np.int64], int]:
    """Return each row's cell as one number, (p - p0) * height + (q - q0), then (p0, q0) and the height."""
    corners = np.stack([positions.min(axis=0), positions.max(axis=0)])
    low, high = grid.cells(corners, cell_m)
    height = int(high[1] - low[1]) + 1
    codes = np.empty(len(positions), np.int64)
    for rows in _blocks(len(positions)):
        p, q = (grid.cells(positions[rows], cell_m) - low).T
        codes[rows] = p * height + q
    return codes, low, height


def _count(codes: Codes, min_images: int) -> tuple[Codes, npt.NDArray[np.int64], int, _Lookup]:
    """Return the codes of cells with enough images, their counts, the greatest count and a lookup."""
    span = int(codes.max()) + 1
    if span <= DENSE_CELLS:
        counts = np.zeros(span, np.int64)
        for rows in _blocks(len(codes)):
            block = np.bincount(codes[rows])
            counts[: len(block)] += block
        kept = np.flatnonzero(counts >= min_images)
        return kept, counts[kept], int(counts.max()), _Lookup(kept, span)
    cells, counts = np.unique(codes, return_counts=True)
    enough = counts >= min_images
    return cells[enough], counts[enough], int(counts.max()), _Lookup(cells[enough], None)


class _Lookup:
    """Code of a cell -> its place among the kept ones, -1 if it is not kept."""

    def __init__(self, kept: Codes, span: int | None) -> None:
        self._kept = kept
        self._table: npt.NDArray[np.int32] | None = None
        if span is not None:
            self._table = np.full(span, -1, np.int32)
            self._table[kept] = np.arange(len(kept))

    def __call__(self, codes: Codes) -> npt.NDArray[np.int64] | npt.NDArray[np.int32]:
        if self._table is not None:
            return self._table[codes]
        places = np.minimum(np.searchsorted(self._kept, codes), len(self._kept) - 1)
        return np.where(self._kept[places] == codes, places, -1)


def _blocks(rows: int) -> list[slice]:
    return [slice(first, min(first + BLOCK_ROWS, rows)) for first in range(0, rows, BLOCK_ROWS)]
