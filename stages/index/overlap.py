"""Images that two manifests share: queries that are database photos find themselves."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.index.manifest import Manifest

EXAMPLES = 3


def shared_images(database: Manifest, queries: Manifest) -> tuple[int, list[str]]:
    """Return how many queries are files of the database too, and the first few of their keys."""
    keys, root = queries.column("key"), database.root.resolve()
    same_root = queries.root.resolve() == root
    resolved = cache(Path.resolve)  # most images share a folder
    # The same file has another key below another root; most often the folders are apart.
    paths = [
        key
        if same_root and not key.startswith("../")
        else os.path.relpath(resolved(queries.image_path(key).parent) / Path(key).name, root)
        for key in keys
    ]
    if all(path.startswith("../") for path in paths):
        return 0, []
    names = pa.array(paths, pa.string())
    shared = np.zeros(len(keys), np.bool_)
    for batch in database.batches(["key"]):
        present = batch["key"].filter(pc.is_in(batch["key"], names))
        if len(present):
            shared |= np.asarray(pc.is_in(names, present), np.bool_)
    return int(shared.sum()), keys[shared][:EXAMPLES].tolist()
