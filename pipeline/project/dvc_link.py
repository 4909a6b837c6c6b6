"""Links from DVC to feature stores: small notes that DVC tracks in their place.

DVC would hash every byte of a store and copy nothing into a temporary workspace. A link lies in the project,
wherever the store is. It holds a checksum, so it changes with the features and DVC then trains again.
"""

from __future__ import annotations

import json

from cache.storage.paths import write_atomic
from cache.store import open_store
from pipeline.project.paths import Paths


def remove_stale_link(paths: Paths, split: str) -> None:
    """Delete a link at the store's default place, where earlier versions wrote it."""
    former = paths.tracked_features(split)
    if former.is_file():
        former.unlink()


def write_link(paths: Paths, split: str) -> None:
    """Write a split's link; equal features give equal links on every machine."""
    store = open_store(paths.features(split))
    content = {
        "recipe_id": store.recipe.id,
        "rows": store.spec.rows,
        "made_for": store.made_for,
        "chunks": store.spec.chunks,
        "chunks_done": store.spec.chunks - len(store.ledger.missing()),
        "sha256": store.ledger.digest(),
    }
    file = paths.features_link(split)
    text = (json.dumps(content, indent=1) + "\n").encode()
    if not file.exists() or file.read_bytes() != text:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, text)
