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
from pipeline.experiments.rows import Plan
from pipeline.experiments.run import HELD, Outcome
from pipeline.experiments.statistics import BUCKETS, Gain, Outcomes, Spread, gains, series


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


def tables(outcomes: Outcomes, plan: Plan, localiser: str) -> list[Table]:
    """Return the tables that have rows: LR@N, LR@1 by size of the true cell, costs, gains."""
    values = {name: series(outcome.runs, localiser) for name, outcome in outcomes.items()}
    measures = list(dict.fromkeys(name for row in values.values() for name in row))
    recalls = [name for name in measures if name not in BUCKETS]
    buckets = [name for name in measures if name in BUCKETS]
    ran = {name: outcome for name, outcome in outcomes.items() if outcome.runs}

    def spreads(row: str, names: Sequence[str]) -> list[str]:
        return [Spread.of(values[row][name]).text() if name in values[row] else "" for name in names]

    rows = [[row, _seeds(outcome), *spreads(row, recalls)] for row, outcome in outcomes.items()]
    title = f"{localiser}: LR@N in percent, mean ± deviation over training seeds"
    shown = [Table(title, ["experiment", "seeds", *recalls], rows)]
    if buckets:
        rows = [[row, *spreads(row, buckets)] for row in ran]
        title = f"{localiser}: LR@1 by the size of the true cell"
        shown.append(Table(title, ["experiment", *buckets], rows))
    if any(outcome.costs for outcome in ran.values()):
        shown.append(_cost_table(ran, localiser))
    if by_pair := gains(outcomes, plan, localiser):
        shown.append(_gain_table(by_pair))
    return shown


def _cost_table(ran: Outcomes, localiser: str) -> Table:
    rows = []
    for name, outcome in ran.items():
        if (costs := outcome.costs) is not None:
            rows.append([
                name,
                "" if costs.extract_s is None else f"{costs.extract_s:,.1f}",
                size(costs.feature_bytes),
                f"{costs.train_s:,.1f}",
                size(round(costs.localiser_bytes)),
                f"{costs.eval_s:,.1f}",
                f"{fmean(metrics[localiser]['ms_per_query'] for metrics in outcome.runs.values()):.2f}",
            ])  # fmt: skip
    title = "costs: seconds and bytes; features may be shared, the others are means over seeds"
    columns = ["experiment", "extract s", "features", "train s", "localiser", "eval s", "ms/query"]
    return Table(title, columns, rows)


def _gain_table(by_pair: Mapping[tuple[str, str], Mapping[str, Gain]]) -> Table:
    rows = []
    for (first, second), by_measure in by_pair.items():
        pair = f"{first} - {second}"
        for name, gain in by_measure.items():
            rows.append([pair, name, gain.spread.text("+"), _p(gain.t_p), _p(gain.flip_p)])
            pair = ""
    columns = ["gain", "of", "points", "p, paired t", "p, sign flips"]
    return Table("gains in points, seed by seed", columns, rows)


def _seeds(outcome: Outcome) -> str:
    """Return the number of seeds that ran, and what happened to the others."""
    count = str(len(outcome.runs)) if outcome.runs else ""
    return ", ".join(filter(None, (count, outcome.shortfall)))


def _p(value: float | None) -> str:
    return "" if value is None else "< 0.001" if value < 0.0005 else f"{value:.3f}"


def shortfalls(outcomes: Outcomes) -> list[str]:
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


def write(folder: Path, outcomes: Outcomes, plan: Plan, localiser: str) -> None:
    """Write experiments.json, with the numbers of every run, and table.md, the tables of the terminal."""
    content = {
        "localiser": localiser,
        "rows": {name: _row(outcome, plan.rows[name], localiser) for name, outcome in outcomes.items()},
        "gains": [
            {"first": first, "second": second, "of": {name: asdict(gain) for name, gain in of.items()}}
            for (first, second), of in gains(outcomes, plan, localiser).items()
        ],
    }
    text = "\n".join(table.markdown() for table in tables(outcomes, plan, localiser))
    reasons = "".join(f"- {line}\n" for line in shortfalls(outcomes))
    write_atomic(folder / "experiments.json", (json.dumps(content, indent=2) + "\n").encode())
    write_atomic(folder / "table.md", (text + (f"\n{reasons}" if reasons else "")).encode())


def _row(outcome: Outcome, settings: Mapping[str, Any], localiser: str) -> dict[str, Any]:
    row: dict[str, Any] = {"settings": dict(settings)}
    if outcome.shortfall:
        row[outcome.shortfall.replace(" ", "_")] = outcome.reason
    if outcome.runs:
        values = series(outcome.runs, localiser)
        row["spread"] = {name: asdict(Spread.of(numbers)) for name, numbers in values.items()}
        row["costs"] = outcome.costs and asdict(outcome.costs)
        row["runs"] = {str(seed): metrics for seed, metrics in sorted(outcome.runs.items())}
    return row
