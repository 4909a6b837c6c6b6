"""LR@N, the share of queries localised by one of the first N predictions (method, 6.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def errors_m(predicted: npt.NDArray[np.float64], truth: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the distance in metres of each prediction from its query's true position.

    Parameters
    ----------
    predicted : ndarray of float64, shape (B, top, 2)
        Predicted positions, best first; NaN where there is no further prediction.
    truth : ndarray of float64, shape (B, 2)
        True positions in the same UTM zone.

    Returns
    -------
    ndarray of float64, shape (B, top)
        Metres; infinite where there is no prediction.
    """
    distances = np.linalg.norm(predicted - truth[:, None, :], axis=2)
    return np.where(np.isnan(distances), np.inf, distances)


def recall_percent(errors: npt.NDArray[np.float64], radius_m: float, tops: Sequence[int]) -> dict[int, float]:
    """Return LR@N in percent for every N of `tops`.

    Parameters
    ----------
    errors : ndarray of float64, shape (B, top)
        Metres, best prediction first; a query without an answer has infinite errors.
    radius_m : float
        A prediction at this distance or nearer counts.
    tops : sequence of int
        The values of N; one beyond the number of predictions counts them all.
    """
    if not len(errors):
        return dict.fromkeys(tops, 0.0)
    within = errors <= radius_m
    return {top: 100 * float(within[:, :top].any(axis=1).mean()) for top in tops}
