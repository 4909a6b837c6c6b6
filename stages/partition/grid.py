"""The square grid over a city: cells of positions, their centres and groups.

Equation numbers are those of the method: squares of side M (4.1, 4.2), their
centres (4.3) and N x N groups of cells that never touch (4.4).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from stages.errors import InputError

Positions = npt.NDArray[np.float64]
"""(n, 2) UTM east and north in metres."""
Cells = npt.NDArray[np.int64]
"""(n, 2) p and q of cells; negative west or south of the origin."""


def cells(positions: Positions, cell_m: float) -> Cells:
    """Return the cell (p, q) that each position lies in (4.2).

    Cells are half open: a point on a border belongs to the eastern or northern cell.

    Raises
    ------
    InputError
        If a position is NaN or infinite.
    """
    if not np.isfinite(positions).all():
        row = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
        raise InputError(
            f"position {positions[row].tolist()} of row {row} lies in no cell: expected finite metres; "
            "index the images again with `pipeline index`"
        )
    corners = np.floor(positions / cell_m)
    # The quotient is rounded, so near a border it may be in the wrong cell.
    corners -= corners * cell_m > positions
    corners += (corners + 1) * cell_m <= positions
    return corners.astype(np.int64)


def centres(cells: Cells, cell_m: float, spans: npt.NDArray[np.int64] | Literal[1] = 1) -> Positions:
    """Return the UTM centre of each cell (4.3), or of the square whose south-west corner it is.

    `spans` is the (n, 1) side of each square in cells.
    """
    return np.asarray((cells + spans / 2) * cell_m, np.float64)


def group_of(cells: Cells, groups_per_side: int) -> npt.NDArray[np.int64]:
    """Return the group number u * N + v of each cell, with u = p mod N and v = q mod N (4.4).

    N is `groups_per_side`, and group numbers are 0 .. N * N - 1.
    """
    residues = np.mod(cells, groups_per_side)
    return residues[:, 0] * groups_per_side + residues[:, 1]


def squares_with(cells: Cells, corners: Cells, spans: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the square that contains each cell: a row of `corners`, -1 if there is none.

    Parameters
    ----------
    cells
        (n, 2) int64, p and q.
    corners
        (K, 2) int64, the cell in the south-west corner of each square. Squares do not overlap, and
        those of one size lie on one lattice.
    spans
        (K,) int64, side of each square in cells.
    """
    containing = np.full(len(cells), -1)
    for span in np.unique(spans):
        some = np.flatnonzero(spans == span)
        offset = np.mod(corners[some[0]], span)
        codes = code((corners[some] - offset) // span)
        order = np.argsort(codes)
        wanted = code((cells - offset) // span)
        place = order[np.searchsorted(codes, wanted, sorter=order).clip(max=len(some) - 1)]
        hit = codes[place] == wanted
        containing[hit] = some[place[hit]]
    return containing


def code(cells: Cells) -> npt.NDArray[np.int64]:
    """Return one number per cell (..., 2), also for negative p and q; cells of equal p sort by q."""
    codes: npt.NDArray[np.int64] = (cells[..., 0] << 32) + (cells[..., 1] + (1 << 31))
    return codes
