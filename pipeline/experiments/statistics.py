"""Means and deviations over training seeds, and tests of the gain of one row over another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import stats

from pipeline.experiments.paired_tests import QueryScores, seed_flip_p, t_test_p
from pipeline.experiments.rows import Plan
from pipeline.experiments.run import Outcome
from pipeline.experiments.run_row import Metrics

BUCKETS = ("head", "mid", "tail")


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
    """Differences between two rows, seed by seed, with two-sided p.

    `t_p` and `flip_p` (paired t and sign-flip tests over seeds) tell whether other seeds would show the gain
    on the same queries; `query_p`, a sign-flip test over `units` independent sessions or bursts of queries,
    whether other queries would.
    """

    spread: Spread
    t_p: float | None
    flip_p: float | None
    query_p: float | None = None
    units: int | None = None

    @classmethod
    def of(cls, first: Sequence[float], second: Sequence[float]) -> Gain:
        """Return the gain of the first over the second: values of the same seeds in the same order."""
        gains = np.subtract(first, second)
        return cls(Spread.of(gains.tolist()), t_test_p(gains), seed_flip_p(gains))


def measures(metrics: Metrics, localiser: str) -> dict[str, float]:
    """Return a localiser's LR@N in percent; for `classify` also LR@1 by the size of the true cell.

    LR@N of each query set follows as "<set> LR@N" where there are several.
    """
    values = _recall(metrics.get(localiser, {}))
    if localiser == "classify":
        breakdown = metrics.get("breakdown", {})
        keys = {bucket: f"cell {bucket} LR@1" for bucket in BUCKETS}
        values |= {bucket: breakdown[key] for bucket, key in keys.items() if key in breakdown}
    for query_set, blocks in metrics.get("sets", {}).items():
        recall = _recall(blocks.get(localiser, {}))
        values |= {f"{query_set} {name}": value for name, value in recall.items()}
    return values


def _recall(block: Mapping[str, float]) -> dict[str, float]:
    return {name: block[name] for name in block if name.startswith("LR@") and name[3:].isdigit()}


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
            if not set(pair) <= self.outcomes.keys():
                continue
            first, second = (self.outcomes[name] for name in pair)
            if seeds := first.runs.keys() & second.runs.keys():
                gains[pair] = self._gains(first.only(seeds), second.only(seeds))
        return gains

    def _gains(self, first: Outcome, second: Outcome) -> dict[str, Gain]:
        """Return the gain in each measure of one outcome over another with the same seeds."""
        a, b = (series(outcome.runs, self.localiser) for outcome in (first, second))
        gains = {name: Gain.of(a[name], b[name]) for name in a if name in b}
        if not first.predictions or not second.predictions:
            return gains
        these, those = (QueryScores.of(outcome.predictions, self.localiser) for outcome in (first, second))
        for name, gain in gains.items():
            if these and those and (test := these.p_of_gain(those, name)) is not None:
                gains[name] = replace(gain, query_p=test[0], units=test[1])
        return gains
