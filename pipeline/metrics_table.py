"""Print the numbers of an evaluation as tables."""

from __future__ import annotations

from typing import Any

from pipeline import console
from pipeline.project.paths import Paths

Metrics = dict[str, object]
COUNTS = ("queries", "unreadable", "skipped_at_index", "resampled", "units")
SCALE = ("chance", "near_cell", "ceiling", "radius_m", "score", "weights")
"""Shown in two lines below the table."""


def read_metrics(paths: Paths) -> dict[str, dict[str, Any]]:
    """Return the blocks of details.json, those of localisers with their times."""
    from stages.files import read_json  # imports pyarrow, which `--help` does not need

    blocks = read_json(paths.details, made_by="pipeline eval")
    times = read_json(paths.timings, made_by="pipeline eval") if paths.timings.exists() else {}
    return {name: block | times.get(name, {}) for name, block in blocks.items()}


def show(paths: Paths, *, localisers_only: bool) -> None:
    """Print the localisers side by side, then the other blocks unless `localisers_only`."""
    sections: dict[str, Metrics] = read_metrics(paths)
    localisers = {name: metrics for name, metrics in sections.items() if "median_error_m" in metrics}
    first = next(iter(localisers.values()))
    within = f"within {first['radius_m']} m, percent (95 % interval)"
    _recall_table(f"queries {within}", localisers)
    for line in (COUNTS, SCALE):
        console.line("  ".join(f"{name.replace('_', ' ')} {first[name]}" for name in line if name in first))
    if "look_ahead_s" in (walks := localisers.get("sequence", {})):
        seconds, photos = walks["look_ahead_s"], walks["look_ahead_photos"]
        console.line(f"sequence looks ahead up to {seconds:,.0f} s, {photos:,} photos")
    for name, metrics in localisers.items():
        if "ECE" in metrics:  # that of classify is in a block of its own
            console.line(f"{name}: ECE {metrics['ECE']:.1f}, mean confidence {metrics['mean']:.1f}")
    for kind in ("set", "session"):
        parts: dict[str, Any] = sections.pop(f"{kind}s", {})
        for name, block in parts.items():
            _recall_table(
                f"{kind} {name}: {block['queries']:,} queries {within}",
                {each: block[each] for each in localisers},
            )
    if not localisers_only:
        for title, metrics in sections.items():
            if title not in localisers:
                console.facts(title, list(metrics.items()))
        console.line("`pipeline explain metrics` explains these words")


def _recall_table(title: str, localisers: dict[str, Metrics]) -> None:
    first = next(iter(localisers.values()))
    names = [name for name in first if not name.endswith((" low", " high")) and name not in COUNTS + SCALE]
    rows = [[name.replace("_", " "), *(_cell(each, name) for each in localisers.values())] for name in names]
    console.table(title, ("", *localisers), rows)


def _cell(metrics: Metrics, name: str) -> object:
    """Return a number, followed by its interval if it has one."""
    low, high = metrics.get(f"{name} low"), metrics.get(f"{name} high")
    value = metrics.get(name, "")
    if low is None or high is None:
        return value
    return f"{console.cell(value)} ({console.cell(low)}-{console.cell(high)})"
