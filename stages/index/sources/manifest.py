"""A manifest as a source, such as that of a pack: the same rows with all their columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages.index.batch import EntryBatch
from stages.index.manifest import Manifest
from stages.index.manifest_writer import REQUIRED
from stages.index.utm_zone import Zone


def read_manifest(path: Path) -> Iterator[tuple[EntryBatch, int]]:
    """Yield the rows of a manifest in its order, and the number of bytes read so far.

    Raises
    ------
    InputError
        If the file is not a manifest.
    """
    manifest = Manifest.open(path)
    zone = Zone.of(manifest.zone) if manifest.zone else None
    size, done = path.stat().st_size, 0
    for rows in manifest.batches():
        batch = EntryBatch.blank(rows["key"])
        batch.positions[:] = np.stack([rows["utm_east"].to_numpy(), rows["utm_north"].to_numpy()], axis=1)
        batch.heading[:] = rows["heading"].to_numpy()
        batch.timestamp = rows["timestamp"]
        if zone is not None:
            batch.zone_numbers[:], batch.bands[:] = zone.number, ord(zone.band)
        batch.extra_columns = {name: rows[name] for name in rows.schema.names if name not in REQUIRED.names}
        done += rows.num_rows
        yield batch, size * done // manifest.rows
