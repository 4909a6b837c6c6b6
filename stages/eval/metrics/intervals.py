"""95 % intervals of LR@N: independent units are resampled, see `units`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from stages.eval.metrics.units import SamplingUnits

Floats = npt.NDArray[np.float64]


def intervals(
    errors: Floats, radius_m: float, tops: Sequence[int], units: SamplingUnits, redrawn: int, seed: int
) -> dict[int, tuple[float, float]]:
    """Return 95 % intervals of LR@N in percent, by N.

    Where queries form sessions or bursts, these are drawn with replacement (percentile bootstrap). An
    interval is never narrower than the exact binomial one (Clopper-Pearson) of as many independent queries;
    this one alone is used where no query belongs to others.

    Parameters
    ----------
    errors : ndarray, shape (Q, top)
        Errors of the answers in metres, best first.
    radius_m : float
        An answer within this distance counts as correct.
    tops : sequence of int
        The values of N.
    units : SamplingUnits
        Of the queries.
    redrawn : int
        Number of resampled query sets; 0 for no intervals.
    seed : int
        Of the bootstrap.
    """
    if not redrawn or not len(errors):
        return {}
    right = np.stack([(errors[:, :top] <= radius_m).any(axis=1) for top in tops], axis=1)
    bounds = [_exact(int(count), len(right)) for count in right.sum(axis=0)]
    if units.kind != "query":
        resampled = _bootstrap(right, units, redrawn, seed)
        bounds = [_outer(*both) for both in zip(bounds, resampled, strict=True)]
    return dict(zip(tops, bounds, strict=True))


def _exact(right: int, count: int) -> tuple[float, float]:
    interval = stats.binomtest(right, count).proportion_ci(0.95)
    return 100 * float(interval.low), 100 * float(interval.high)


def _outer(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    return min(first[0], second[0]), max(first[1], second[1])


def _bootstrap(
    right: npt.NDArray[np.bool_], units: SamplingUnits, redrawn: int, seed: int
) -> list[tuple[float, float]]:
    """Return an interval for each column of `right` (Q, columns)."""
    count = units.count
    size = np.bincount(units.number, minlength=count)
    sums = np.stack([np.bincount(units.number, column, count) for column in right.T], axis=1)
    # Units with the same numbers are drawn together: a resample is how often each kind of unit occurs.
    kinds, often = np.unique(np.column_stack([sums, size]), axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(count, often / count, redrawn) @ kinds
    shares = drawn[:, :-1] / drawn[:, -1:]
    bounds = [(float(low), float(high)) for low, high in 100 * np.quantile(shares, [0.025, 0.975], axis=0).T]
    # If all units are right, or all wrong, resampling changes nothing: take the units' exact interval.
    for column, total in enumerate(sums.sum(axis=0)):
        if total in (0, len(right)):
            bounds[column] = _exact(count if total else 0, count)
    return bounds
