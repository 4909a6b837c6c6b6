"""Which rows a store must have: the images of a manifest, or the planned views of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cache.row_identity import IdentityArrays, RowIdentities, row_ids
from cache.store import FeatureStore
from stages.errors import InputError
from stages.index.manifest import Manifest
from stages.partition.views import ViewPlan

_KEY_BLOCK = 1 << 17


def has_rows(store: FeatureStore, manifest: Manifest, views: ViewPlan | None = None) -> bool:
    """Whether the store is for these images, or these views of them, row by row."""
    rows = manifest.rows if views is None else len(views)
    return store.spec.rows == rows and store.is_for(row_identities(manifest, views))


def require_same_rows(store: FeatureStore, manifest: Manifest, views: ViewPlan | None = None) -> None:
    """Raise InputError unless the store is for these images, or these views of them, row by row."""
    if has_rows(store, manifest, views):
        return
    expected = str(manifest.path) if views is None else f"the view plan and {manifest.path}"
    wanted = manifest.rows if views is None else len(views)
    counts = "" if store.spec.rows == wanted else f" ({store.spec.rows:,} rows, not {wanted:,})"
    raise InputError(
        f"{store.path} was made for other images than {expected}{counts}: run `pipeline extract`, "
        "which reuses the features of unchanged images"
    )


def row_identities(manifest: Manifest, views: ViewPlan | None = None) -> RowIdentities:
    """Return the identities of a store's rows; their digest is read from the manifest's note."""
    digest = manifest.row_digest if views is None else views.row_digest(manifest.row_digest)
    return RowIdentities(digest, lambda: _arrays(manifest, views))


def view_name(key: str, view: int) -> str:
    """Return the name of a view's row."""
    return f"{key}#{view}"


def _arrays(manifest: Manifest, views: ViewPlan | None) -> IdentityArrays:
    file_bytes = manifest.file_bytes()
    if file_bytes is not None and views is not None:
        file_bytes = file_bytes[views.row]
    return IdentityArrays(row_ids(_names(manifest, views)), file_bytes)


def _names(manifest: Manifest, views: ViewPlan | None) -> Iterator[str]:
    """Yield the name that identifies each row: the key, or ``key#view``."""
    for start in range(0, manifest.rows, _KEY_BLOCK):
        stop = min(start + _KEY_BLOCK, manifest.rows)
        keys = manifest.keys(start, stop)
        if views is None:
            yield from keys
            continue
        low, high = np.searchsorted(views.row, [start, stop])
        span = slice(low, high)
        for row, view in zip(views.row[span].tolist(), views.view[span].tolist(), strict=True):
            yield view_name(keys[row - start], view)
