"""Links that let DVC track feature stores outside the project folder.

DVC tracks files in the project only. If `data.features` is elsewhere, a small file takes the store's default
place. It holds the store's address and a checksum, so it changes with the features and DVC then trains again.
"""

from __future__ import annotations

import hashlib
import json

from cache.storage.paths import write_atomic
from cache.store import open_store
from pipeline.project.paths import Paths
from stages.errors import ConfigError


def remove_stale_link(paths: Paths, split: str) -> None:
    """Delete a split's link if its store is about to take that place.

    Raises
    ------
    ConfigError
        If the store belongs elsewhere, but the project already holds one.
    """
    link = paths.tracked_features(split)
    if _in_project(paths, split):
        if link.is_file():
            link.unlink()
    elif link.is_dir():
        raise ConfigError(
            f"data.features is {paths.features(split)}, but {link} also holds features: move them to "
            "data.features to keep them, or delete that folder"
        )


def write_link(paths: Paths, split: str) -> None:
    """Write a split's link if its store is outside the project."""
    if _in_project(paths, split):
        return
    store, digest = open_store(paths.features(split)), hashlib.sha256()
    done = 0
    for entry in store.ledger.entries():
        digest.update(json.dumps([entry.chunk, entry.crc32, [bad.row for bad in entry.bad]]).encode())
        done += 1
    content = {
        "features": str(store.path),
        "recipe_id": store.recipe.id,
        "rows": store.spec.rows,
        "chunks": store.spec.chunks,
        "chunks_done": done,
        "sha256": digest.hexdigest(),
    }
    file = paths.tracked_features(split)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, (json.dumps(content, indent=1) + "\n").encode())


def _in_project(paths: Paths, split: str) -> bool:
    return paths.features(split).resolve() == paths.tracked_features(split).resolve()
