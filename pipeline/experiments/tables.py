"""The comparison of rows: tables for the terminal and in Markdown, all numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from cache.storage.paths import write_atomic
from pipeline.console import size
from pipeline.experiments.run import HELD, Outcome
from pipeline.experiments.statistics import BUCKETS, Comparison, Spread


@dataclass(frozen=True)
class Table:
    """A table of text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return the table in Markdown, below its title."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return f"{self.title}:\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def tables(comparison: Comparison) -> list[Table]:
    """Return the tables that have rows: LR@N, also by query set and size of the true cell, costs, gains."""
    outcomes, values, localiser = comparison.outcomes, comparison.values, comparison.localiser
    measures = list(dict.fromkeys(name for row in values.values() for name in row))
    recalls = [name for name in measures if name.startswith("LR@")]
    buckets = [name for name in measures if name in BUCKETS]
    sets = [name for name in measures if name not in recalls + buckets]
    ran = [name for name, outcome in outcomes.items() if outcome.runs]

    def spreads(row: str, names: Sequence[str]) -> list[str]:
        return [Spread.of(values[row][name]).text() if name in values[row] else "" for name in names]

    rows = [[row, _seeds(outcome), *spreads(row, recalls)] for row, outcome in outcomes.items()]
    title = f"{localiser}: LR@N in percent, mean ± deviation over training seeds"
    shown = [Table(title, ["experiment", "seeds", *recalls], rows)]
    if sets:
        rows = [[row, *spreads(row, sets)] for row in ran]
        shown.append(Table(f"{localiser}: LR@N of each query set", ["experiment", *sets], rows))
    if buckets:
        rows = [[row, *spreads(row, buckets)] for row in ran]
        title = f"{localiser}: LR@1 by the size of the true cell"
        shown.append(Table(title, ["experiment", *buckets], rows))
    return shown + [table for table in (_cost_table(comparison), _gain_table(comparison)) if table.rows]


def _cost_table(comparison: Comparison) -> Table:
    rows = []
    for name, outcome in comparison.outcomes.items():
        if (costs := outcome.costs) is not None:
            ms = [metrics[comparison.localiser]["ms_per_query"] for metrics in outcome.runs.values()]
            rows.append([
                name,
                "" if costs.extract_s is None else f"{costs.extract_s:,.1f}",
                size(costs.feature_bytes),
                f"{costs.train_s:,.1f}",
                size(round(costs.localiser_bytes)),
                f"{costs.eval_s:,.1f}",
                f"{fmean(ms):.2f}",
            ])  # fmt: skip
    title = "costs: seconds and bytes; features may be shared, the others are means over seeds"
    columns = ["experiment", "extract s", "features", "train s", "localiser", "eval s", "ms/query"]
    return Table(title, columns, rows)


def _gain_table(comparison: Comparison) -> Table:
    rows = []
    for (first, second), by_measure in comparison.gains.items():
        pair = f"{first} - {second}"
        for name, gain in by_measure.items():
            if " LR@" in name and not name.endswith(" LR@1"):  # one gain for each query set is enough
                continue
            rows.append([pair, name, gain.spread.text("+"), _p(gain.t_p), _p(gain.flip_p), _p(gain.query_p)])
            pair = ""
    columns = ["gain", "of", "points", "p, paired t", "p, sign flips", "p, queries"]
    return Table("gains in points, seed by seed", columns, rows)


def _seeds(outcome: Outcome) -> str:
    """Return the number of seeds that ran, and what happened to the others."""
    count = str(len(outcome.runs)) if outcome.runs else ""
    return ", ".join(filter(None, (count, outcome.shortfall)))


def _p(value: float | None) -> str:
    return "" if value is None else "< 0.001" if value < 0.0005 else f"{value:.3f}"


def shortfalls(outcomes: Mapping[str, Outcome]) -> list[str]:
    """Return one line per reason why seeds are missing, with the rows it applies to."""
    names: dict[tuple[str, str], list[str]] = {}
    for name, outcome in outcomes.items():
        if outcome.shortfall:
            names.setdefault((outcome.shortfall, outcome.reason), []).append(name)
    advice = {HELD: "; run the same command again when that has ended"}
    return [
        f"{', '.join(rows)}: {shortfall}: {reason}{advice.get(shortfall, '')}"
        for (shortfall, reason), rows in names.items()
    ]


def write(folder: Path, comparison: Comparison) -> None:
    """Write experiments.json, with the numbers of every run, and table.md, the tables of the terminal."""
    content = {
        "localiser": comparison.localiser,
        "rows": {name: _row(comparison, name) for name in comparison.outcomes},
        "gains": [
            {"first": first, "second": second, "of": {name: asdict(gain) for name, gain in gains.items()}}
            for (first, second), gains in comparison.gains.items()
        ],
    }
    text = "\n".join(table.markdown() for table in tables(comparison))
    reasons = "".join(f"- {line}\n" for line in shortfalls(comparison.outcomes))
    write_atomic(folder / "experiments.json", (json.dumps(content, indent=2) + "\n").encode())
    write_atomic(folder / "table.md", (text + (f"\n{reasons}" if reasons else "")).encode())


def _row(comparison: Comparison, name: str) -> dict[str, Any]:
    outcome = comparison.outcomes[name]
    row: dict[str, Any] = {"settings": dict(comparison.plan.rows[name])}
    if outcome.shortfall:
        row[outcome.shortfall.replace(" ", "_")] = outcome.reason
    if outcome.runs:
        values = comparison.values[name]
        row["spread"] = {measure: asdict(Spread.of(numbers)) for measure, numbers in values.items()}
        row["costs"] = outcome.costs and asdict(outcome.costs)
        row["runs"] = {str(seed): metrics for seed, metrics in sorted(outcome.runs.items())}
    return row
