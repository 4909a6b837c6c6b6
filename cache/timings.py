"""How long chunks took: a log ``<split>.timings.jsonl`` beside the store, one JSON line per chunk.

The log lies outside the store so that the content of a store depends on the features alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from cache.storage.paths import AnyPath, StoragePath, storage_path

_NAMES = ("images", "read_s", "compute_s", "write_s", "read_wait_s", "write_wait_s")


def log_timing(store: AnyPath, timing: Mapping[str, float | int | str]) -> None:
    """Append one line to a store's timings; safe from several processes at once."""
    timings_path(store).append((json.dumps(dict(timing)) + "\n").encode())


def total_timings(store: AnyPath) -> dict[str, float]:
    """Sums over all runs: images, seconds of work, and seconds that the backbone waited.

    Torn lines are skipped. Names: images, read_s, compute_s, write_s, read_wait_s, write_wait_s.
    """
    total = dict.fromkeys(_NAMES, 0.0)
    for line in timings_path(store).read_appended().decode(errors="replace").splitlines():
        try:
            timing = json.loads(line)
            numbers = {name: float(timing.get(name, 0.0)) for name in total}
        except (ValueError, TypeError, AttributeError):
            continue
        for name, number in numbers.items():
            total[name] += number
    return total


def timings_path(store: AnyPath) -> StoragePath:
    """Return the path of a store's timings."""
    store = storage_path(store)
    return store.with_name(store.name.removesuffix(".zarr") + ".timings.jsonl")
