"""Means and deviations over training seeds, and tests of the gain of one row over another."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from pipeline.experiments.rows import Plan
from pipeline.experiments.run import Outcome
from pipeline.experiments.run_row import Metrics

BUCKETS = ("head", "mid", "tail")
_MOST_SEEDS = 16  # that the sign-flip test takes: it tries all 2 ** seeds ways to flip


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation, and half the 95 % interval of the mean (Student's t); None for one seed."""

    mean: float
    sd: float | None
    half: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of the values of several seeds."""
        if len(values) < 2:
            return cls(float(np.mean(values)), None, None)
        sd = float(np.std(values, ddof=1))
        half = float(stats.t.ppf(0.975, len(values) - 1)) * sd / math.sqrt(len(values))
        return cls(float(np.mean(values)), sd, half)

    def text(self, sign: str = "") -> str:
        """Return the spread for a table; a `sign` of "+" is for changes."""
        return f"{self.mean:{sign}.1f}" + ("" if self.sd is None else f" ± {self.sd:.1f}")


@dataclass(frozen=True)
class Gain:
    """Differences between two rows, seed by seed, and two-sided p of the paired t and sign-flip tests."""

    spread: Spread
    t_p: float | None
    flip_p: float | None

    @classmethod
    def of(cls, first: Sequence[float], second: Sequence[float]) -> Gain:
        """Return the gain of the first over the second: values of the same seeds in the same order."""
        gains = np.subtract(first, second)
        return cls(Spread.of(gains.tolist()), _t_test(gains), _flip_test(gains))


def _t_test(gains: npt.NDArray[np.float64]) -> float | None:
    """Return the p of the paired t test; None for one seed, or if all gains are equal and not 0."""
    if len(gains) < 2:
        return None
    if np.ptp(gains) == 0:  # the statistic would be infinite or 0 / 0
        return None if gains[0] else 1.0
    with warnings.catch_warnings():  # scipy warns of gains that are equal but for rounding
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(stats.ttest_1samp(gains, 0).pvalue)


def _flip_test(gains: npt.NDArray[np.float64]) -> float | None:
    """Return the exact p of the sign-flip test, at least 2 / 2 ** seeds; None for too many seeds or one."""
    if not 2 <= len(gains) <= _MOST_SEEDS:
        return None
    # As many resamples as there are flips make the test exact.
    test = stats.permutation_test(
        (gains,), _rounded_sum, permutation_type="samples", n_resamples=2**_MOST_SEEDS, vectorized=True
    )
    return float(test.pvalue)


def _rounded_sum(gains: npt.NDArray[np.float64], axis: int) -> Any:
    """Return sums without rounding errors of floating point, which would break ties."""
    return np.round(gains.sum(axis=axis), 9)


def measures(metrics: Metrics, localiser: str) -> dict[str, float]:
    """Return a localiser's LR@N in percent; for `classify` also LR@1 by the size of the true cell."""
    block = metrics.get(localiser, {})
    values = {name: block[name] for name in block if name.startswith("LR@") and name[3:].isdigit()}
    if localiser == "classify":
        breakdown = metrics.get("breakdown", {})
        keys = {bucket: f"cell {bucket} LR@1" for bucket in BUCKETS}
        values |= {bucket: breakdown[key] for bucket, key in keys.items() if key in breakdown}
    return values


def series(runs: Mapping[int, Metrics], localiser: str) -> dict[str, list[float]]:
    """Return the values of each measure in the order of the seeds."""
    by_seed = [measures(runs[seed], localiser) for seed in sorted(runs)]
    return {name: [values[name] for values in by_seed] for name in (by_seed[0] if by_seed else {})}


@dataclass(frozen=True)
class Comparison:
    """The outcomes of rows by name, compared in the measures of one localiser."""

    outcomes: Mapping[str, Outcome]
    plan: Plan
    localiser: str

    @cached_property
    def values(self) -> dict[str, dict[str, list[float]]]:
        """The values of each measure by row, in the order of the seeds."""
        return {name: series(outcome.runs, self.localiser) for name, outcome in self.outcomes.items()}

    @cached_property
    def gains(self) -> dict[tuple[str, str], dict[str, Gain]]:
        """The gain in each measure by pair of rows, over the seeds that both have."""
        gains = {}
        for pair in self.plan.compare:
            first, second = (self.outcomes[name].runs if name in self.outcomes else {} for name in pair)
            if seeds := first.keys() & second.keys():
                a, b = (
                    series({seed: runs[seed] for seed in seeds}, self.localiser) for runs in (first, second)
                )
                gains[pair] = {name: Gain.of(a[name], b[name]) for name in a if name in b}
        return gains
