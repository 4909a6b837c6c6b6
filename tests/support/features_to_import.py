"""Images and features as another program might bring them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.index.manifest import Manifest
from stages.index.manifest_writer import write_manifest

ROWS = 100
KEYS = [f"street/{row:03d}.jpg" for row in range(ROWS)]


def manifest_of(path: Path, keys: list[str] = KEYS, zone: str = "10S") -> Manifest:
    """Return a manifest of images that lie 2 m apart on a line."""
    batch = pa.record_batch(
        {
            "key": keys,
            "utm_east": np.arange(len(keys)) * 2.0 + 500_000.125,
            "utm_north": np.full(len(keys), 4_000_000.0),
            "heading": pa.array(np.zeros(len(keys)), pa.float32()),
            "timestamp": [""] * len(keys),
        }
    )
    return write_manifest(path, [batch], root=path.parent, zone=zone, source="csv")


def positions_csv(path: Path, keys: list[str] = KEYS, zone: str = "10S") -> Path:
    """Write the same positions as a list."""
    rows = [f"{key},{500_000 + row * 2},4000000,{zone}" for row, key in enumerate(keys)]
    path.write_text("\n".join(["path,utm_east,utm_north,zone", *rows]) + "\n")
    return path
