"""A manifest, such as a pack's, as a source: its rows as they are, further columns included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages.index.batch import EntryBatch
from stages.index.manifest import REQUIRED, Manifest
from stages.index.utm_zone import Zone


def found_in_manifest(path: Path) -> Iterator[tuple[EntryBatch, int]]:
    """Yield the rows of a manifest in its order, and how many bytes have been read.

    Raises
    ------
    InputError
        If the file is no manifest.
    """
    manifest = Manifest.open(path)
    zone = Zone.of(manifest.zone) if manifest.zone else None
    size, done = path.stat().st_size, 0
    for batch in manifest.batches():
        found = EntryBatch.blank(batch["key"])
        found.positions[:] = np.stack([batch["utm_east"].to_numpy(), batch["utm_north"].to_numpy()], axis=1)
        found.heading[:] = batch["heading"].to_numpy()
        found.timestamp = batch["timestamp"]
        if zone is not None:
            found.zone_numbers[:], found.bands[:] = zone.number, ord(zone.band)
        found.further = {name: batch[name] for name in batch.schema.names if name not in REQUIRED.names}
        done += batch.num_rows
        yield found, size * done // manifest.rows
