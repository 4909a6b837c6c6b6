"""The comparison of rows as tables: on the terminal, as Markdown, and with every number as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.storage.paths import write_atomic
from pipeline.console import size
from pipeline.experiments.rows import Plan
from pipeline.experiments.run import HELD, Outcome
from pipeline.experiments.statistics import BUCKETS, Gain, Results, Spread, gains, series


@dataclass(frozen=True)
class Table:
    """A table: its title, its columns, its rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return it in Markdown, the title as a paragraph of its own."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return f"{self.title}:\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def tables(found: Results, plan: Plan, localiser: str) -> list[Table]:
    """Return what there is to show: LR@N, that by the size of the true cell, costs, gains."""
    ran = {name: outcome for name, outcome in found.items() if outcome.runs}
    shown = [_recalls(found, localiser)]
    if any(set(BUCKETS) & series(outcome.runs, localiser).keys() for outcome in ran.values()):
        shown.append(_by_cell(ran, localiser))
    if any(outcome.costs for outcome in ran.values()):
        shown.append(_costs(ran, localiser))
    if tested := gains(found, plan, localiser):
        shown.append(_gains(tested))
    return shown


def _recalls(found: Results, localiser: str) -> Table:
    columns, cells = _spreads(found, localiser, wanted=lambda name: name not in BUCKETS)
    rows = [[name, _seeds(outcome), *cells[name]] for name, outcome in found.items()]
    title = f"{localiser}: LR@N in percent, mean ± deviation over training seeds"
    return Table(title, ["experiment", "seeds", *columns], rows)


def _by_cell(ran: Results, localiser: str) -> Table:
    columns, cells = _spreads(ran, localiser, wanted=lambda name: name in BUCKETS)
    title = f"{localiser}: LR@1 by the size of the true cell"
    return Table(title, ["experiment", *columns], [[name, *cells[name]] for name in ran])


def _costs(ran: Results, localiser: str) -> Table:
    rows = []
    for name, outcome in ran.items():
        if (costs := outcome.costs) is None:
            continue
        spent = "" if costs.extract_s is None else _duration(costs.extract_s)
        answer = float(np.mean([metrics[localiser]["ms_per_query"] for metrics in outcome.runs.values()]))
        localiser_size = size(round(costs.localiser_bytes))
        numbers = (_duration(costs.train_s), localiser_size, _duration(costs.eval_s), f"{answer:.2f}")
        rows.append([name, spent, size(costs.feature_bytes), *numbers])
    columns = ["experiment", "extract s", "features", "train s", "localiser", "eval s", "ms/query"]
    return Table(
        "costs: seconds and bytes; features may be shared, the others are means over seeds", columns, rows
    )


def _gains(tested: Mapping[tuple[str, str], Mapping[str, Gain]]) -> Table:
    rows = []
    for (first, second), by_measure in tested.items():
        pair = f"{first} - {second}"
        for name, gain in by_measure.items():
            rows.append([pair, name, gain.spread.signed(), _p(gain.t_p), _p(gain.flip_p)])
            pair = ""
    columns = ["gain", "of", "points", "p, paired t", "p, sign flips"]
    return Table("gains in points, seed by seed", columns, rows)


def _spreads(
    found: Results, localiser: str, wanted: Callable[[str], bool]
) -> tuple[list[str], dict[str, list[str]]]:
    """Return the measures wanted that any row has, and each row's cells under them."""
    values = {name: series(outcome.runs, localiser) for name, outcome in found.items()}
    columns = list(dict.fromkeys(name for row in values.values() for name in row if wanted(name)))
    cells = {
        name: [str(Spread.of(row[column])) if column in row else "" for column in columns]
        for name, row in values.items()
    }
    return columns, cells


def _seeds(outcome: Outcome) -> str:
    """How many seeds stand behind a row's numbers, and what became of the others."""
    count = str(len(outcome.runs)) if outcome.runs else ""
    return ", ".join(filter(None, (count, outcome.lacking)))


def _duration(seconds: float) -> str:
    return f"{seconds:,.1f}"


def _p(value: float | None) -> str:
    return "" if value is None else "< 0.001" if value < 0.0005 else f"{value:.3f}"


def shortfalls(found: Results) -> list[str]:
    """Return a line per reason why something is lacking, with the rows that it is for."""
    alike: dict[tuple[str, str], list[str]] = {}
    for name, outcome in found.items():
        if outcome.lacking:
            alike.setdefault((outcome.lacking, outcome.reason), []).append(name)
    ends = {HELD: "; run the same command again when that has ended"}
    return [
        f"{', '.join(names)}: {lacking}: {reason}{ends.get(lacking, '')}"
        for (lacking, reason), names in alike.items()
    ]


def write(folder: Path, found: Results, plan: Plan, localiser: str) -> None:
    """Write experiments.json, with every run's numbers, and table.md, the tables of the terminal."""
    content = {
        "localiser": localiser,
        "rows": {name: _row(outcome, plan.rows[name], localiser) for name, outcome in found.items()},
        "gains": [
            {"first": first, "second": second, "of": {name: asdict(gain) for name, gain in of.items()}}
            for (first, second), of in gains(found, plan, localiser).items()
        ],
    }
    text = "\n".join(table.markdown() for table in tables(found, plan, localiser))
    reasons = "".join(f"- {line}\n" for line in shortfalls(found))
    write_atomic(folder / "experiments.json", (json.dumps(content, indent=2) + "\n").encode())
    write_atomic(folder / "table.md", (text + (f"\n{reasons}" if reasons else "")).encode())


def _row(outcome: Outcome, settings: Mapping[str, Any], localiser: str) -> dict[str, Any]:
    row: dict[str, Any] = {"settings": dict(settings)}
    if outcome.lacking:
        row[outcome.lacking.replace(" ", "_")] = outcome.reason
    if outcome.runs:
        values = series(outcome.runs, localiser)
        row["spread"] = {name: asdict(Spread.of(numbers)) for name, numbers in values.items()}
        row["costs"] = outcome.costs and asdict(outcome.costs)
        row["runs"] = {str(seed): metrics for seed, metrics in sorted(outcome.runs.items())}
    return row
