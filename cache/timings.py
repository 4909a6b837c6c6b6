"""How long chunks took: one line each in ``<split>.timings.jsonl``, beside the store.

Timings live outside the store, so that what a store holds depends on the features alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path


def log_timing(store: Path, timing: Mapping[str, float | int | str]) -> None:
    """Append one line to a store's timings; safe from several processes at once."""
    line = json.dumps(dict(timing)) + "\n"
    # One write in append mode, so that lines of several processes do not mix.
    descriptor = os.open(timings_path(store), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def total_timings(store: Path) -> dict[str, float]:
    """Sum of images, read_s, compute_s and write_s over all runs; a torn last line is passed over."""
    total = dict.fromkeys(("images", "read_s", "compute_s", "write_s"), 0.0)
    path = timings_path(store)
    if not path.exists():
        return total
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            timing = json.loads(line)
        except ValueError:
            continue
        for name in total:
            total[name] += float(timing.get(name, 0.0))
    return total


def timings_path(store: Path) -> Path:
    """Where the timings of a store lie."""
    return store.with_name(store.name.removesuffix(".zarr") + ".timings.jsonl")
