"""Places: the squares that answers name, and the classes that vote for each.

Heads score classes, while an answer is a place. In a grid the two are the same.
With heading classes the score of a cell is that of its best class. With several
partitions a place is the intersection of one class of each, and its score is the
sum of their log probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.partition import grid
from stages.partition.classes import ClassTable

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Places:
    """Squares that do not overlap; a place id is a row number.

    Attributes
    ----------
    p, q : ndarray of int64, shape (n,)
        The cell in the south-west corner.
    span : ndarray of int64, shape (n,)
        Side in cells.
    centres : ndarray of float64, shape (n, 2)
        UTM east and north of the centres in metres.
    group : ndarray of int32, shape (n,)
        Group of the first class that votes for each.
    images : ndarray of int64, shape (n,)
        Training images: of all headings, or of the smallest class that contains the place.
    bucket : ndarray of str, shape (n,)
        "head", "mid" or "tail" of its class in the first partition, or of its fullest heading.
    cell_m : float
        Side of a cell in metres.
    votes : ndarray of int64, shape (n, V), or None
        Classes that vote for each, -1 for none; None if places are the classes themselves.
    summed : bool
        Whether votes are added; otherwise the best one counts.
    """

    p: Ints
    q: Ints
    span: Ints
    centres: npt.NDArray[np.float64]
    group: npt.NDArray[np.int32]
    images: Ints
    bucket: npt.NDArray[np.str_]
    cell_m: float
    votes: Ints | None = None
    summed: bool = False

    def __len__(self) -> int:
        return len(self.p)

    @classmethod
    def of(cls, classes: ClassTable) -> Places:
        """Return the places of a class table."""
        if classes.heading is not None:
            return cls._of_headings(classes)
        if classes.partitions > 1:
            return cls._of_partitions(classes)
        return cls(
            classes.p,
            classes.q,
            classes.spans,
            classes.centres,
            classes.group,
            classes.images,
            classes.bucket,
            classes.cell_m,
        )

    @classmethod
    def _of_headings(cls, classes: ClassTable) -> Places:
        """Return the cells sorted by p and q; the votes of a cell are its headings, fullest first."""
        cells = np.stack([classes.p, classes.q], axis=1)
        unique, cell = np.unique(cells, axis=0, return_inverse=True)
        cell = cell.ravel()
        order = np.lexsort((-classes.images, cell))
        starts = np.searchsorted(cell[order], np.arange(len(unique)))
        votes = np.full((len(unique), int(np.bincount(cell).max(initial=1))), -1)
        votes[cell[order], np.arange(len(order)) - starts[cell[order]]] = order
        images = np.bincount(cell, weights=classes.images).astype(np.int64)
        return cls._of_cells(unique, images, votes, classes, summed=False)

    @classmethod
    def _of_partitions(cls, classes: ClassTable) -> Places:
        """Return the cells inside a class of every partition, in the class order of the first one."""
        parts = [classes.partition_slice(partition) for partition in range(classes.partitions)]
        outlines = classes.outlines
        span = int(outlines[parts[0], 2].max(initial=1))
        steps = np.stack(np.divmod(np.arange(span * span), span), axis=1)
        cells = (outlines[parts[0], None, :2] + steps).reshape(-1, 2)
        votes = np.empty((len(cells), len(parts)), np.int64)
        for column, part in enumerate(parts):
            square = grid.squares_with(cells, outlines[part, :2], outlines[part, 2])
            votes[:, column] = np.where(square < 0, -1, square + part.start)
        everywhere = (votes >= 0).all(axis=1)
        cells, votes = cells[everywhere], votes[everywhere]
        return cls._of_cells(cells, classes.images[votes].min(axis=1), votes, classes, summed=True)

    @classmethod
    def _of_cells(
        cls, cells: grid.Cells, images: Ints, votes: Ints, classes: ClassTable, *, summed: bool
    ) -> Places:
        return cls(
            np.ascontiguousarray(cells[:, 0]),
            np.ascontiguousarray(cells[:, 1]),
            np.ones(len(cells), np.int64),
            grid.centres(cells, classes.cell_m),
            classes.group[votes[:, 0]],
            images,
            classes.bucket[votes[:, 0]],
            classes.cell_m,
            votes,
            summed,
        )

    def at(self, positions: grid.Positions) -> Ints:
        """Return the place that contains each position, -1 if there is none."""
        corners = np.stack([self.p, self.q], axis=1)
        return grid.squares_with(grid.cells(positions, self.cell_m), corners, self.span)
