"""Paired tests of two rows: over training seeds, and over independent queries.

All seeds answer the same queries, so tests over seeds cannot tell whether other queries would show the gain.
In tests over queries each session or burst (see `stages.eval.metrics.units`) is one observation: its gain,
averaged over the seeds.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from stages.files import read_table

Floats = npt.NDArray[np.float64]
_CELL_SIZES = ("head", "mid", "tail")
_EXACT = 16
"""Gains up to this number have all 2 ** 16 ways to flip their signs tried, more a random sample of them."""
_SAMPLED = 9_999


def t_test_p(gains: Floats) -> float | None:
    """Return the p of the paired t test; None for one seed, or if all gains are equal and not 0."""
    if len(gains) < 2:
        return None
    if np.ptp(gains) == 0:  # the statistic would be infinite or 0 / 0
        return None if gains[0] else 1.0
    with warnings.catch_warnings():  # scipy warns of gains that are equal but for rounding
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(stats.ttest_1samp(gains, 0).pvalue)


def seed_flip_p(gains: Floats) -> float | None:
    """Return the exact p of the sign-flip test, at least 2 / 2 ** seeds; None for too many seeds or one."""
    return sign_flip_p(gains) if 2 <= len(gains) <= _EXACT else None


def sign_flip_p(gains: Floats) -> float:
    """Return the p of the sign-flip test of any number of gains; exact if at most 16 are not 0."""
    gains = gains[np.round(gains, 9) != 0]  # flipping the others changes nothing
    if len(gains) < 2:
        return 1.0
    exact = len(gains) <= _EXACT
    test = stats.permutation_test(
        (gains,),
        _rounded_sum,
        permutation_type="samples",
        n_resamples=2**_EXACT if exact else _SAMPLED,
        batch=None if exact else 1000,
        vectorized=True,
        random_state=0,
    )
    return float(test.pvalue)


def _rounded_sum(gains: Floats, axis: int) -> Any:
    """Return sums without rounding errors of floating point, which would break ties."""
    return np.round(gains.sum(axis=axis), 9)


@dataclass(frozen=True)
class QueryScores:
    """Share of the seeds with a correct answer to each query, by measure; NaN where the measure skips it."""

    keys: list[str]
    unit: npt.NDArray[np.int64]
    correct: dict[str, Floats]

    @classmethod
    def of(cls, predictions: Mapping[int, Path], localiser: str) -> QueryScores | None:
        """Return the scores of a localiser from the predictions of each seed; None if old ones lack units."""
        tables = [read_table(path, made_by="pipeline eval") for _, path in sorted(predictions.items())]
        if not all("unit" in each for each, _ in tables):
            return None
        columns, note = tables[0]
        if localiser == "classify":
            names = {f"LR@{name[8:]}": name for name in columns if name.startswith("correct@")}
            correct = {measure: _mean([each[name] for each, _ in tables]) for measure, name in names.items()}
            for size in _CELL_SIZES:
                correct[size] = np.where(columns["cell"] == size, correct["LR@1"], np.nan)
        else:
            error = f"{localiser}_error_m"
            correct = {"LR@1": _mean([each[error] <= note["radius_m"] for each, _ in tables])}
        return cls(columns["key"].tolist(), columns["unit"], correct)

    def p_of_gain(self, other: QueryScores, measure: str) -> tuple[float, int] | None:
        """Return the p of the gain over another row, and the number of units; None if they do not compare."""
        mine, theirs = self.correct.get(measure), other.correct.get(measure)
        if mine is None or theirs is None or self.keys != other.keys:
            return None
        counted = np.isfinite(mine)
        if not counted.any() or not np.array_equal(counted, np.isfinite(theirs)):
            return None
        units, index = np.unique(self.unit[counted], return_inverse=True)
        gains: Floats = np.bincount(index, weights=(mine - theirs)[counted]).astype(np.float64)
        return sign_flip_p(gains), len(units)


def _mean(seeds: list[npt.NDArray[np.bool_]]) -> Floats:
    mean: Floats = np.mean(seeds, axis=0, dtype=np.float64)
    return mean
