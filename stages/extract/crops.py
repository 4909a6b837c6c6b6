"""Crops of the queries besides the centre (`eval.crops`): each position along the longer side has a store.

All crops of a square photo are the same: its row is copied from the store of the centre crops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cache.recipe import Recipe
from cache.storage.paths import StoragePath
from cache.store import open_store, store_exists
from stages.extract.reuse import ReusableStore
from stages.images.formats import open_picture
from stages.images.read import UnreadableImage, as_unreadable
from stages.index.manifest import Manifest
from stages.index.packs.reader import ImageSource
from stages.models.backbones.card import BackboneCard


@dataclass(frozen=True)
class Crop:
    """Where a crop lies, see `Preprocess.crop_at`, and the store of the centre crops of the same images."""

    position: float
    centre: StoragePath

    def applied_to(self, card: BackboneCard) -> BackboneCard:
        """Return the description of a backbone that sees this crop."""
        return replace(card, preprocess=replace(card.preprocess, crop_at=self.position))


def square_rows(
    crop: Crop, recipe: Recipe, manifest: Manifest, rows: npt.NDArray[np.int64]
) -> list[ReusableStore]:
    """Return the centre crops of those of the rows whose images are square, as a store to copy from.

    `recipe` is that of the crop. Centre crops that were made with other settings are left out.
    """
    if not len(rows) or not store_exists(crop.centre):
        return []
    centre = open_store(crop.centre)
    preprocessing = {name: value for name, value in recipe.preprocessing.items() if name != "crop_at"}
    if centre.recipe.id != replace(recipe, preprocessing=preprocessing).id:
        return []
    stored, square = ReusableStore.of(centre), _square(manifest, rows)
    kept = square[stored.rows]
    file_bytes = None if stored.file_bytes is None else stored.file_bytes[kept]
    return [ReusableStore(crop.centre, stored.identities[kept], stored.rows[kept], file_bytes)]


def _square(manifest: Manifest, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which of all images are square, as far as they are among the rows."""
    square = np.zeros(manifest.rows, np.bool_)
    source, first = ImageSource(manifest), int(rows[0])
    locations = source.locations(first, int(rows[-1]) + 1)
    for row in rows.tolist():
        location = locations[row - first]
        path = manifest.image_path(location.key)
        try:
            with as_unreadable(path):
                content = source.content(location) if location.shard >= 0 else path
                with open_picture(content) as image:
                    square[row] = image.width == image.height
        except UnreadableImage:  # extraction finds the same fault and records it
            continue
    return square
