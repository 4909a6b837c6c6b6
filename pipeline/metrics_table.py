"""Print metrics.json as tables."""

from __future__ import annotations

from pathlib import Path

from pipeline import console

Metrics = dict[str, object]
COUNTS = ("queries", "unreadable", "skipped_at_index", "resampled", "units")
SCALE = ("chance", "near_cell", "ceiling", "radius_m", "score", "weights")
"""Shown in two lines below the table."""


def show(path: Path, *, localisers_only: bool) -> None:
    """Print the localisers side by side, then its other sections unless `localisers_only`."""
    from stages.files import read_json  # imports pyarrow, which `--help` does not need

    sections: dict[str, Metrics] = read_json(path, made_by="pipeline eval")
    localisers = {name: metrics for name, metrics in sections.items() if "ms_per_query" in metrics}
    first = next(iter(localisers.values()))
    names = [name for name in first if not name.endswith((" low", " high")) and name not in COUNTS + SCALE]
    rows = [[name.replace("_", " "), *(_cell(each, name) for each in localisers.values())] for name in names]
    console.table(f"queries within {first['radius_m']} m, percent (95 % interval)", ("", *localisers), rows)
    for line in (COUNTS, SCALE):
        console.line("  ".join(f"{name.replace('_', ' ')} {first[name]}" for name in line if name in first))
    if not localisers_only:
        for title, metrics in sections.items():
            if title not in localisers:
                console.facts(title, list(metrics.items()))
        console.line("`pipeline explain metrics` explains these words")


def _cell(metrics: Metrics, name: str) -> object:
    """Return a number, followed by its interval if it has one."""
    low, high = metrics.get(f"{name} low"), metrics.get(f"{name} high")
    value = metrics.get(name, "")
    if low is None or high is None:
        return value
    return f"{console.cell(value)} ({console.cell(low)}-{console.cell(high)})"
