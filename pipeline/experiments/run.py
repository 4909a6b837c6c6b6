"""Run all rows; a row that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch.cuda import OutOfMemoryError

from cache.errors import PlacecacheError
from pipeline.experiments.costs import Costs, costs_of
from pipeline.experiments.rows import Row
from pipeline.experiments.run_row import HeldElsewhere, Metrics, prepare, run_seed
from stages.errors import WeightsError

Report = Callable[[str], None]
"""Called with a line of text for the user."""
# Shortfalls: the backbone's weights are not available; something else is wrong; another process is at it.
NOT_RUN, FAILED, HELD = "not run", "failed", "held"


@dataclass(frozen=True)
class Outcome:
    """Metrics and predictions of a row by seed, and its costs; a shortfall and why, if seeds are missing."""

    runs: dict[int, Metrics]
    shortfall: str = ""
    reason: str = ""
    costs: Costs | None = None
    predictions: dict[int, Path] = field(default_factory=dict)

    def only(self, seeds: Set[int]) -> Outcome:
        """Return the outcome with only some of its seeds."""
        runs = {seed: self.runs[seed] for seed in seeds}
        predictions = {seed: path for seed, path in self.predictions.items() if seed in seeds}
        return replace(self, runs=runs, predictions=predictions)


def run_rows(
    rows: Sequence[Row], seeds: Sequence[int], *, device: str, localiser: str, report: Report
) -> dict[str, Outcome]:
    """Return the outcome of each row, in their order.

    Seeds that another process holds are tried once more at the end: it may have finished them.
    """
    outcomes: dict[str, Outcome] = {}
    for row in rows:
        outcomes[row.name] = run_row(row, seeds, device=device, localiser=localiser, report=report)
        _report_shortfall(row.name, outcomes, report)
    for row in rows:
        if (first := outcomes[row.name]).shortfall == HELD:
            rest = [seed for seed in seeds if seed not in first.runs]
            second = run_row(row, rest, device=device, localiser=localiser, report=report)
            outcomes[row.name] = replace(second, runs={**first.runs, **second.runs})
            if second.reason != first.reason:
                _report_shortfall(row.name, outcomes, report)
    for row in rows:
        outcome = outcomes[row.name]
        predictions = {seed: row.paths(seed).predictions for seed in outcome.runs}
        costs = costs_of(row, outcome.runs)
        outcomes[row.name] = replace(outcome, costs=costs, predictions=predictions)
    return outcomes


def run_row(row: Row, seeds: Sequence[int], *, device: str, localiser: str, report: Report) -> Outcome:
    """Return the outcome of a row; seeds that another process is running are left to it."""
    runs: dict[int, Metrics] = {}
    shortfall, reasons = "", []
    try:
        prepare(row, device)
        for seed in seeds:
            try:
                runs[seed], known = run_seed(row, seed, device)
            except HeldElsewhere as fault:
                shortfall = HELD
                reasons.append(str(fault))
                continue
            report(f"{row.name}, seed {seed}: {_headline(runs[seed], localiser, known)}")
    except WeightsError as fault:
        shortfall, reasons = NOT_RUN, [str(fault)]
    except HeldElsewhere as fault:
        shortfall, reasons = HELD, [str(fault)]
    except (PlacecacheError, OutOfMemoryError) as fault:
        shortfall, reasons = FAILED, [str(fault)]
    return Outcome(runs, shortfall, " ".join("; ".join(reasons).split()))


def _headline(metrics: Metrics, localiser: str, known: bool) -> str:
    name, recall = next(item for item in metrics[localiser].items() if item[0].startswith("LR@"))
    seconds = metrics["seconds"]
    duration = "done before" if known else f"{seconds['train'] + seconds['eval']:.1f} s"
    return f"{name} {recall:.1f}, {duration}"


def _report_shortfall(name: str, outcomes: Mapping[str, Outcome], report: Report) -> None:
    """Report what a row lacks; a reason that was reported for another row is not repeated."""
    outcome = outcomes[name]
    if outcome.shortfall:
        same = [other for other in outcomes if other != name and outcomes[other].reason == outcome.reason]
        reason = f"for the same reason as {same[0]}" if same else outcome.reason
        report(f"{name}: {outcome.shortfall}: {reason}")
