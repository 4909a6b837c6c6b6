"""How far the positions of photos scatter, from photos that one camera took one after the other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stages.index.clock import clock_seconds
from stages.index.manifest import Manifest

LONGEST_GAP_S = 15.0  # between photos; a path is nearly straight for so long
FEWEST = 30  # photos needed for a quantile
QUANTILE = 0.9
MOST_ROWS = 1_000_000  # read from the start of a manifest


def position_noise_m(photos: Manifest) -> float | None:
    """Return the distance within which 90 % of the photos lie from the path of their session, in metres.

    The path of a photo is the straight line between the photos before and after it, at its time. So
    walking or driving does not count, and neither do photos that repeat the fix of the one before. An
    error that all photos of a session share is not seen.

    Returns
    -------
    float or None
        None without sessions and times of day, or with too few photos in a row.
    """
    if "session" not in photos.column_names:
        return None
    columns = photos.part(["session", "timestamp", "utm_east", "utm_north"], 0, MOST_ROWS)
    seconds = clock_seconds(columns["timestamp"].combine_chunks())
    _, session = np.unique(columns["session"].to_numpy().astype(str), return_inverse=True)
    positions = np.stack([columns["utm_east"].to_numpy(), columns["utm_north"].to_numpy()], axis=1)
    order = np.lexsort((seconds, session.ravel()))
    order = order[np.isfinite(seconds[order])]
    off = _distances_from_path(session.ravel()[order], seconds[order], positions[order])
    return float(np.quantile(off, QUANTILE)) if len(off) >= FEWEST else None


def _distances_from_path(
    session: npt.NDArray[np.integer], seconds: npt.NDArray[np.float64], positions: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return how far fixes lie from the line between their neighbours, (F,); ordered by session and time."""
    moved = np.ones(len(session), np.bool_)
    moved[1:] = (session[1:] != session[:-1]) | (positions[1:] != positions[:-1]).any(1)
    session, seconds, positions = session[moved], seconds[moved], positions[moved]
    gaps = np.diff(seconds)
    joined = (session[1:] == session[:-1]) & (gaps > 0) & (gaps <= LONGEST_GAP_S)
    middle = np.flatnonzero(joined[1:] & joined[:-1]) + 1
    share = (gaps[middle - 1] / (gaps[middle - 1] + gaps[middle]))[:, None]
    before, after = positions[middle - 1], positions[middle + 1]
    off: npt.NDArray[np.float64] = np.linalg.norm(
        positions[middle] - before - share * (after - before), axis=1
    )
    return off
