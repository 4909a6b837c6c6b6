"""The database photos sorted by cell: photos of one cell are adjacent on the disk."""

from __future__ import annotations

import errno
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.reader import FeatureReader
from stages.errors import InputError
from stages.eval.localisers.retrieval import PhotoSpace, stream
from stages.partition import grid


@dataclass(frozen=True)
class CellIndex:
    """The valid photos of all occupied cells, including cells that are not a class.

    Attributes
    ----------
    codes : ndarray of int64, shape (C,)
        One number per occupied cell, ascending.
    starts : ndarray of int64, shape (C + 1,)
        Index of the first photo of each cell.
    rows : ndarray of int64, shape (n,)
        Database rows, cell by cell, ascending within a cell.
    vectors : ndarray of float16, shape (n, length)
        Unit vectors in the same order, mapped from an unnamed file.
    positions : ndarray of float64, shape (database rows, 2)
        UTM east and north of all rows in metres.
    """

    codes: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float16]
    positions: npt.NDArray[np.float64]

    @classmethod
    def build(
        cls,
        database: FeatureReader,
        positions: npt.NDArray[np.float64],
        space: PhotoSpace,
        cell_m: float,
        folder: Path | None = None,
    ) -> CellIndex:
        """Return the index of a database, which is read once; its vectors stay on the disk.

        `positions` (rows, 2) are UTM east and north in metres. The vectors' file is in `folder`, by
        default that of temporary files.

        Raises
        ------
        InputError
            If the disk is too small for the vectors.
        """
        rows = np.flatnonzero(database.valid)
        code = grid.code(grid.cells(positions[rows], cell_m))
        order = np.argsort(code, kind="stable")
        codes, starts = np.unique(code[order], return_index=True)
        place_of = np.empty(database.rows, np.int64)
        place_of[rows[order]] = np.arange(len(rows))
        vectors = np.empty((0, space.length), np.float16)
        if len(rows):
            with tempfile.TemporaryFile(dir=folder) as file:
                _reserve(file.fileno(), 2 * len(rows) * space.length, folder)
                vectors = np.memmap(file, np.float16, "w+", shape=(len(rows), space.length))
        for numbers, block in stream(database, space):
            vectors[place_of[numbers.cpu().numpy()]] = block.half().cpu().numpy()
        return cls(codes, np.append(starts, len(rows)).astype(np.int64), rows[order], vectors, positions)

    @property
    def nbytes(self) -> int:
        """Size of the index."""
        return sum(value.nbytes for value in vars(self).values())

    def within(self, codes: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the indices of the photos in these cells, and the number of each photo's cell in `codes`."""
        cell = np.searchsorted(self.codes, codes)
        occupied = np.flatnonzero(cell < len(self.codes))
        occupied = occupied[self.codes[cell[occupied]] == codes[occupied]]
        first, last = self.starts[cell[occupied]], self.starts[cell[occupied] + 1]
        counts = last - first
        shift = np.repeat(first - np.append(0, np.cumsum(counts)[:-1]), counts)
        return np.arange(counts.sum()) + shift, np.repeat(occupied, counts)

    def similarity(self, query: Tensor, photos: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the cosines of a unit vector (length,) with the photos of these indices."""
        vectors = torch.from_numpy(np.asarray(self.vectors[photos])).to(query.device)
        cosines: npt.NDArray[np.float32] = (vectors.float() @ query).cpu().numpy()
        return cosines


def _reserve(file: int, size: int, folder: Path | None) -> None:
    """Allocate the disk space of a file now: on a full disk, writing to a mapped file kills the process."""
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # this file system cannot allocate ahead
            return
        where = folder or tempfile.gettempdir()
        raise InputError(
            f"hybrid needs {size:,} bytes in {where} for its index ({error.strerror}): free some space, "
            "or leave hybrid out of eval.localisers"
        ) from error
