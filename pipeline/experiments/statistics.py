"""What several seeds of several rows say: means, deviations, and gains tested seed by seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from pipeline.experiments.rows import Plan
from pipeline.experiments.run import Outcome
from pipeline.experiments.run_row import Metrics

Results = Mapping[str, Outcome]
BUCKETS = ("head", "mid", "tail")
_MOST_FLIPS = 16
"""Seeds up to which all ways to flip signs are tried; of more, the t test alone speaks."""


@dataclass(frozen=True)
class Spread:
    """Mean, deviation between seeds, and half a 95 % interval of the mean (Student's t)."""

    mean: float
    sd: float | None
    half: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return what some seeds' values say; of one alone there is no deviation."""
        if len(values) < 2:
            return cls(float(np.mean(values)), None, None)
        sd = float(np.std(values, ddof=1))
        half = float(stats.t.ppf(0.975, len(values) - 1)) * sd / math.sqrt(len(values))
        return cls(float(np.mean(values)), sd, half)

    def __str__(self) -> str:
        return f"{self.mean:.1f}{self._deviation}"

    def signed(self) -> str:
        """Return it as a change: a plus before what is no loss."""
        return f"{self.mean:+.1f}{self._deviation}"

    @property
    def _deviation(self) -> str:
        return "" if self.sd is None else f" ± {self.sd:.1f}"


@dataclass(frozen=True)
class Gain:
    """By how much one row is above another, seed by seed.

    Attributes
    ----------
    spread : Spread
        Of the differences.
    t_p : float or None
        Two-sided p of the paired t test.
    flip_p : float or None
        Two-sided p of all sign flips of the differences: exact, and never below 2 / 2 ** seeds.
    """

    spread: Spread
    t_p: float | None
    flip_p: float | None

    @classmethod
    def of(cls, first: Sequence[float], second: Sequence[float]) -> Gain:
        """Return the gain of the first over the second, values of the same seeds in the same order."""
        gains = np.subtract(first, second)
        spread = Spread.of(gains.tolist())
        return cls(spread, _t_test(spread, len(gains)), _flip_test(gains))


def _t_test(spread: Spread, count: int) -> float | None:
    if spread.sd is None:
        return None
    if spread.sd == 0:  # the statistic is 0 / 0 or infinite
        return None if spread.mean else 1.0
    return float(2 * stats.t.sf(abs(spread.mean) / spread.sd * math.sqrt(count), count - 1))


def _flip_test(gains: npt.NDArray[np.float64]) -> float | None:
    if not 2 <= len(gains) <= _MOST_FLIPS:
        return None
    signs = np.array(list(itertools.product((-1, 1), repeat=len(gains))))
    return float((np.abs(signs @ gains) >= abs(gains.sum()) - 1e-9).mean())


def measures(metrics: Metrics, localiser: str) -> dict[str, float]:
    """Return LR@N in percent of a localiser; of `classify` also LR@1 by the size of the true cell."""
    block = metrics.get(localiser, {})
    found = {name: block[name] for name in block if name.startswith("LR@") and name[3:].isdigit()}
    if localiser == "classify":
        kinds = metrics.get("breakdown", {})
        names = {bucket: f"cell {bucket} LR@1" for bucket in BUCKETS}
        found |= {name: kinds[key] for name, key in names.items() if key in kinds}
    return found


def series(runs: Mapping[int, Metrics], localiser: str) -> dict[str, list[float]]:
    """Return the values of each measure in the order of the seeds."""
    each = [measures(runs[seed], localiser) for seed in sorted(runs)]
    return {name: [values[name] for values in each] for name in (each[0] if each else {})}


def gains(found: Results, plan: Plan, localiser: str) -> dict[tuple[str, str], dict[str, Gain]]:
    """Return the gain of each measure for the pairs of rows, over the seeds that both have."""
    tested = {}
    for first, second in plan.compare:
        ours, theirs = (found[name].runs if name in found else {} for name in (first, second))
        both = ours.keys() & theirs.keys()
        if both:
            a, b = (series({seed: runs[seed] for seed in both}, localiser) for runs in (ours, theirs))
            tested[first, second] = {name: Gain.of(a[name], b[name]) for name in a if name in b}
    return tested
