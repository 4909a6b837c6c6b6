"""The splits whose features a project stores: the three of every project, and crops of its queries."""

from __future__ import annotations

from cache.store import store_exists
from pipeline.project.paths import CROP_SPLITS, SPLITS, Paths


def stored_splits(paths: Paths) -> list[str]:
    """Return all splits, those of crops only where they were extracted."""
    return [*SPLITS, *(split for split in CROP_SPLITS.values() if store_exists(paths.features(split)))]
