"""Experiments: rows of settings, several training seeds each, side by side on one project's data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch.cuda import OutOfMemoryError

from cache.errors import PlacecacheError, StoreError
from pipeline.experiments.costs import Costs
from pipeline.experiments.rows import Row
from pipeline.experiments.run_row import HeldElsewhere, Metrics, prepare, run_seed, splits_of
from stages.errors import WeightsError

Say = Callable[[str], None]
NOT_RUN, FAILED, HELD = "not run", "failed", "held"


@dataclass(frozen=True)
class Outcome:
    """What came of one row.

    Attributes
    ----------
    runs : dict
        Metrics by seed, as far as it came.
    lacking : str
        Empty if that is all that was asked for. Otherwise `NOT_RUN`: weights cannot be had here; `HELD`:
        another process is at it; or `FAILED`.
    reason : str
        Why something is lacking.
    costs : Costs or None
        Time and storage; None without runs.
    """

    runs: dict[int, Metrics]
    lacking: str = ""
    reason: str = ""
    costs: Costs | None = None


def run_row(row: Row, seeds: Sequence[int], *, device: str, localiser: str, say: Say) -> Outcome:
    """Return what came of a row; its faults end the row, not the command.

    Seeds that another process is running are left to it.
    """
    runs: dict[int, Metrics] = {}
    lacking, reasons = "", []
    try:
        prepare(row, device=device)
        for seed in seeds:
            try:
                runs[seed], known = run_seed(row, seed, device=device)
            except HeldElsewhere as fault:
                lacking = HELD
                reasons.append(str(fault))
                continue
            say(f"{row.name}, seed {seed}: {_headline(runs[seed], localiser, known)}")
    except WeightsError as fault:
        lacking, reasons = NOT_RUN, [str(fault)]
    except HeldElsewhere as fault:
        lacking, reasons = HELD, [str(fault)]
    except (PlacecacheError, OutOfMemoryError) as fault:
        lacking, reasons = FAILED, [str(fault)]
    return Outcome(runs, lacking, " ".join("; ".join(reasons).split()))


def _headline(metrics: Metrics, localiser: str, known: bool) -> str:
    found = [f"{name} {value:.1f}" for name, value in metrics[localiser].items() if name.startswith("LR@")]
    seconds = metrics["seconds"]
    spent = "done before" if known else f"{seconds['train'] + seconds['eval']:.1f} s"
    return f"{found[0]}, {spent}"


def _costs(row: Row, runs: dict[int, Metrics]) -> Costs | None:
    if not runs:
        return None
    with contextlib.suppress(StoreError):  # damaged: numbers of earlier runs are as good without
        features = {split: row.paths(0).features(split) for split in splits_of(row.params(0))}
        return Costs.of(features, [row.paths(seed).localiser for seed in runs], list(runs.values()))
    return None


def run_rows(
    rows: Sequence[Row], seeds: Sequence[int], *, device: str, localiser: str, say: Say
) -> dict[str, Outcome]:
    """Return what came of each row, in their order.

    What another process holds is asked for once more at the end, when it may be done.
    """
    found: dict[str, Outcome] = {}
    for row in rows:
        found[row.name] = run_row(row, seeds, device=device, localiser=localiser, say=say)
        _tell(row.name, found, say)
    for row in rows:
        if (before := found[row.name]).lacking == HELD:
            rest = [seed for seed in seeds if seed not in before.runs]
            after = run_row(row, rest, device=device, localiser=localiser, say=say)
            found[row.name] = replace(after, runs={**before.runs, **after.runs})
            if after.reason != before.reason:
                _tell(row.name, found, say)
    return {row.name: replace(found[row.name], costs=_costs(row, found[row.name].runs)) for row in rows}


def _tell(name: str, found: Mapping[str, Outcome], say: Say) -> None:
    """Say at once what is lacking; a reason that was given before is not given again."""
    lacking, reason = found[name].lacking, found[name].reason
    if lacking:
        alike = [other for other in found if other != name and found[other].reason == reason]
        say(f"{name}: {lacking}: {f'for the same reason as {alike[0]}' if alike else reason}")
