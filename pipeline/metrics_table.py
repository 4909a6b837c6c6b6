"""What metrics.json says, as tables for a person."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline import console

Block = dict[str, object]
SIDE_NOTES = ("queries", "unreadable", "chance", "ceiling", "radius_m", "score", "weights")


def show(metrics: Path, *, whole: bool) -> None:
    """Print the localisers side by side; with `whole`, also scores, confidence and kinds of query first."""
    numbers: dict[str, Block] = json.loads(metrics.read_text(encoding="utf-8"))
    compared = {name: block for name, block in numbers.items() if "ms_per_query" in block}
    if whole:
        for title, block in numbers.items():
            if title not in compared:
                console.facts(title, list(block.items()))
    first = next(iter(compared.values()))
    names = [name for name in first if not name.endswith((" low", " high")) and name not in SIDE_NOTES]
    rows = [[name.replace("_", " "), *(_cell(block, name) for block in compared.values())] for name in names]
    console.table(f"queries within {first['radius_m']} m, percent (95 % interval)", ("", *compared), rows)
    console.say("  ".join(f"{name.replace('_', ' ')} {first[name]}" for name in SIDE_NOTES if name in first))


def _cell(block: Block, name: str) -> object:
    """A figure, with its interval where there is one."""
    low, high = block.get(f"{name} low"), block.get(f"{name} high")
    value = block.get(name, "")
    if low is None or high is None:
        return value
    return f"{console.cell(value)} ({console.cell(low)}-{console.cell(high)})"
