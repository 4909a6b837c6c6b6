"""Features that live outside the project folder: DVC tracks a note of where they are and which.

DVC tracks files in the project. A store elsewhere is therefore noted in a small file in the place
where it would lie by default; the note changes when the features do, and training follows.
"""

from __future__ import annotations

import hashlib
import json

from cache.storage.paths import write_atomic
from cache.store import open_store
from pipeline.project.paths import Paths
from stages.errors import ConfigError


def make_way(paths: Paths, split: str) -> None:
    """See that store and note are not in each other's way.

    Raises
    ------
    ConfigError
        If features are to go elsewhere, but a store of theirs is in the project.
    """
    note = paths.tracked_features(split)
    if _inside(paths, split):
        if note.is_file():
            note.unlink()
    elif note.is_dir():
        raise ConfigError(
            f"data.features is elsewhere ({paths.features(split)}), but {note} holds features: "
            "copy them there if they are still wanted, and delete the folder here"
        )


def note(paths: Paths, split: str) -> None:
    """Note where a split's features are, and a checksum of the ledger's checksums, if they are elsewhere."""
    if _inside(paths, split):
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


def _inside(paths: Paths, split: str) -> bool:
    return paths.features(split).resolve() == paths.tracked_features(split).resolve()
