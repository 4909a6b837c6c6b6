"""The database photos sorted by cell, so that the photos of one place lie side by side on the disk."""

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
    """Which sound database photos lie in which cell, whether it is a class or not, and what they look like.

    Attributes
    ----------
    codes : ndarray of int64, shape (C,)
        One number per occupied cell, ascending.
    starts : ndarray of int64, shape (C + 1,)
        Where its photos begin.
    rows : ndarray of int64, shape (n,)
        Database rows, cell by cell, ascending within a cell.
    vectors : ndarray of float16, shape (n, length)
        Unit vectors of these photos, in the same order, mapped from a file without a name.
    positions : ndarray of float64, shape (database rows, 2)
        Of all rows, metres.
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
        """Return the index of a database; its vectors lie on the disk until it is dropped.

        Parameters
        ----------
        database : FeatureReader
            Passes by once, chunk by chunk.
        positions : ndarray of float64, shape (rows, 2)
            Metres.
        space : PhotoSpace
            What photos are compared by.
        cell_m : float
            Side of a cell.
        folder : Path, optional
            On the disk that holds the vectors; by default that of temporary files.
        """
        rows = np.flatnonzero(database.valid)
        code = grid.code(grid.cells(positions[rows], cell_m))
        order = np.argsort(code, kind="stable")
        codes, starts = np.unique(code[order], return_index=True)
        place = np.empty(database.rows, np.int64)
        place[rows[order]] = np.arange(len(rows))
        vectors = np.empty((0, space.length), np.float16)
        if len(rows):
            with tempfile.TemporaryFile(dir=folder) as file:
                _reserve(file.fileno(), 2 * len(rows) * space.length, folder)
                vectors = np.memmap(file, np.float16, "w+", shape=(len(rows), space.length))
        for numbers, block in stream(database, space):
            vectors[place[numbers.cpu().numpy()]] = block.half().cpu().numpy()
        return cls(codes, np.append(starts, len(rows)).astype(np.int64), rows[order], vectors, positions)

    @property
    def nbytes(self) -> int:
        """Bytes that the index takes."""
        return sum(value.nbytes for value in vars(self).values())

    def within(self, codes: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the places in the index of the photos in these cells, and the number of each one's cell."""
        place = np.searchsorted(self.codes, codes)
        found = np.flatnonzero(place < len(self.codes))
        found = found[self.codes[place[found]] == codes[found]]
        first, last = self.starts[place[found]], self.starts[place[found] + 1]
        counts = last - first
        shift = np.repeat(first - np.append(0, np.cumsum(counts)[:-1]), counts)
        return np.arange(counts.sum()) + shift, np.repeat(found, counts)

    def likeness(self, query: Tensor, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the cosines of a unit vector (length,) with the photos at these places."""
        photos = torch.from_numpy(np.asarray(self.vectors[places])).to(query.device)
        found: npt.NDArray[np.float32] = (photos.float() @ query).cpu().numpy()
        return found


def _reserve(file: int, size: int, folder: Path | None) -> None:
    """Take the disk space of a file now: a mapped file that found none later would kill the process."""
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # a disk that cannot say
            return
        place = folder or tempfile.gettempdir()
        raise InputError(
            f"hybrid needs {size:,} bytes in {place} for a while ({error.strerror}): free some space, "
            "or leave hybrid out of eval.localisers"
        ) from error
