"""Wall patterns large enough to be seen across the street."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Grid = npt.NDArray[np.int32]


def pattern_mask(name: str, width: int, height: int, pitch_px: int, base: int) -> Mask:
    """Where a wall shows its second colour, bool (height, width); the pattern is anchored at the pavement.

    Parameters
    ----------
    name : str
        One of `PATTERNS`.
    pitch_px : int
        Size of one repeat.
    base : int
        Row where the ground floor begins.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.int32)
    return _DRAWN[name](x, np.int32(base) - y, pitch_px)


def _plain(x: Grid, y: Grid, pitch: int) -> Mask:
    return np.zeros(x.shape, bool)


def _stripes(x: Grid, y: Grid, pitch: int) -> Mask:
    return x % pitch < pitch // 2


def _bands(x: Grid, y: Grid, pitch: int) -> Mask:
    return y % pitch < pitch // 2


def _checker(x: Grid, y: Grid, pitch: int) -> Mask:
    return np.asarray((x // pitch + y // pitch) % 2 == 0)


def _diamonds(x: Grid, y: Grid, pitch: int) -> Mask:
    return np.asarray(np.abs(x % (2 * pitch) - pitch) + np.abs(y % (2 * pitch) - pitch) < pitch)


def _dots(x: Grid, y: Grid, pitch: int) -> Mask:
    return np.asarray((x % pitch - pitch / 2) ** 2 + (y % pitch - pitch / 2) ** 2 < (0.32 * pitch) ** 2)


def _chevrons(x: Grid, y: Grid, pitch: int) -> Mask:
    return np.asarray((y + np.abs(x % (2 * pitch) - pitch)) % pitch < pitch // 2)


def _timber(x: Grid, y: Grid, pitch: int) -> Mask:
    span = 2 * pitch
    across, up = x % span, y % span
    braces = (np.abs(across - up) < 4) & ((x // span) % 2 == 0)
    return np.asarray(
        (across < 6) | (up < 6) | braces | ((np.abs(across + up - span) < 4) & ((x // span) % 2 == 1))
    )


def _quoins(x: Grid, y: Grid, pitch: int) -> Mask:
    reach = np.where((y // 10) % 2 == 0, 20, 12)
    edge = np.minimum(x, x.max() - x)
    return np.asarray(edge < reach)


def _lattice(x: Grid, y: Grid, pitch: int) -> Mask:
    return np.asarray(((x + y) % pitch < 5) | ((x - y) % pitch < 5))


def _waves(x: Grid, y: Grid, pitch: int) -> Mask:
    return np.asarray((y + (0.5 * pitch * np.sin(x / pitch * 2.0)).astype(int)) % pitch < pitch // 3)


_DRAWN: dict[str, Callable[[Grid, Grid, int], Mask]] = {
    "plain": _plain, "stripes": _stripes, "bands": _bands, "checker": _checker, "diamonds": _diamonds,
    "dots": _dots, "chevrons": _chevrons, "timber": _timber, "quoins": _quoins, "lattice": _lattice,
    "waves": _waves,
}  # fmt: skip
PATTERNS = tuple(_DRAWN)
