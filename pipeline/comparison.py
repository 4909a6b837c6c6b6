"""What several seeds of several rows say: means, deviations, and gains tested seed by seed."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from cache.files import write_atomic
from pipeline.experiment_rows import Plan
from pipeline.experiments import Metrics

Runs = Mapping[str, Mapping[int, Metrics] | str]
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
        return f"{self.mean:.1f}" if self.sd is None else f"{self.mean:.1f} ± {self.sd:.1f}"


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


def gains(found: Runs, plan: Plan, localiser: str) -> dict[tuple[str, str], dict[str, Gain]]:
    """Return the gain of each measure for the pairs of rows that were run."""
    tested = {}
    for first, second in plan.compare:
        ours, theirs = found.get(first, ""), found.get(second, "")
        if not isinstance(ours, str) and not isinstance(theirs, str):
            a, b = series(ours, localiser), series(theirs, localiser)
            tested[first, second] = {name: Gain.of(a[name], b[name]) for name in a if name in b}
    return tested


def rows_of(found: Runs, localiser: str) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the table: a row per experiment, what was not run with its reason."""
    spreads = {
        name: {} if isinstance(runs, str) else {m: Spread.of(v) for m, v in series(runs, localiser).items()}
        for name, runs in found.items()
    }
    columns = list(dict.fromkeys(measure for row in spreads.values() for measure in row))
    table = []
    for name, runs in found.items():
        cells = [str(spreads[name][measure]) if measure in spreads[name] else "" for measure in columns]
        seconds = "" if isinstance(runs, str) else _seconds(runs)
        table.append([name, *cells, seconds])
    return ["experiment", *columns, "train s"], table


def _seconds(runs: Mapping[int, Metrics]) -> str:
    return f"{np.mean([metrics['seconds']['train'] for metrics in runs.values()]):.1f}"


def gain_rows(tested: Mapping[tuple[str, str], Mapping[str, Gain]]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the table of gains: a row per pair and measure."""
    table = [
        [f"{first} - {second}", name, str(gain.spread), _p(gain.t_p), _p(gain.flip_p)]
        for (first, second), by_measure in tested.items()
        for name, gain in by_measure.items()
    ]
    return ["gain", "of", "points", "p, paired t", "p, sign flips"], table


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write(folder: Path, found: Runs, plan: Plan, localiser: str) -> None:
    """Write experiments.json, with every run's numbers, and table.md."""
    content: dict[str, Any] = {"localiser": localiser, "rows": {}, "gains": []}
    for name, runs in found.items():
        row: dict[str, Any] = {"settings": dict(plan.rows[name])}
        if isinstance(runs, str):
            row["not_run"] = runs
        else:
            row |= {"spread": {m: vars(Spread.of(v)) for m, v in series(runs, localiser).items()}}
            row["runs"] = {str(seed): metrics for seed, metrics in sorted(runs.items())}
        content["rows"][name] = row
    tested = gains(found, plan, localiser)
    for (first, second), by_measure in tested.items():
        of = {name: {**vars(gain), "spread": vars(gain.spread)} for name, gain in by_measure.items()}
        content["gains"].append({"first": first, "second": second, "of": of})
    reasons = "".join(f"- {name}: {runs}\n" for name, runs in found.items() if isinstance(runs, str))
    text = markdown(*rows_of(found, localiser))
    if tested:
        text += "\n" + markdown(*gain_rows(tested))
    write_atomic(folder / "experiments.json", (json.dumps(content, indent=2) + "\n").encode())
    write_atomic(folder / "table.md", (text + (f"\n{reasons}" if reasons else "")).encode())
