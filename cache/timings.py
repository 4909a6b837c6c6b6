"""How long chunks took: one line each in ``<split>.timings.jsonl``, beside the store.

On object storage, where nothing can be appended, an object each under that name.

Timings live outside the store, so that what a store holds depends on the features alone.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping

from cache.storage.paths import StoragePath, read_each
from cache.storage.remote import RemotePath

_NAMES = ("images", "read_s", "compute_s", "write_s", "read_wait_s", "write_wait_s")


def log_timing(store: StoragePath, timing: Mapping[str, float | int | str]) -> None:
    """Append one line to a store's timings; safe from several processes at once."""
    line = json.dumps(dict(timing)) + "\n"
    path = timings_path(store)
    if isinstance(path, RemotePath):
        (path / uuid.uuid4().hex).write_bytes(line.encode())
        return
    # One write in append mode, so that lines of several processes do not mix.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def total_timings(store: StoragePath) -> dict[str, float]:
    """Sums over all runs: images, seconds of work, and seconds that the backbone waited.

    Torn lines are passed over. Names: images, read_s, compute_s, write_s, read_wait_s, write_wait_s.
    """
    total = dict.fromkeys(_NAMES, 0.0)
    path = timings_path(store)
    if isinstance(path, RemotePath):
        logs = read_each(path, list(path.sizes()))
    else:
        logs = read_each(path.parent, [path.name])
    lines = b"".join(content for _, content in logs).decode(errors="replace").splitlines()
    for line in lines:
        try:
            timing = json.loads(line)
            numbers = {name: float(timing.get(name, 0.0)) for name in total}
        except (ValueError, TypeError, AttributeError):
            continue
        for name, number in numbers.items():
            total[name] += number
    return total


def timings_path(store: StoragePath) -> StoragePath:
    """Where the timings of a store lie."""
    return store.with_name(store.name.removesuffix(".zarr") + ".timings.jsonl")
