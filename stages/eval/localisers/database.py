"""The features and manifest of a split, checked against the localiser."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cache.errors import RecipeMismatch
from cache.reader import FeatureReader
from cache.storage.paths import StoragePath
from stages.extract.row_identity import require_same_rows
from stages.index.manifest import Manifest
from stages.models.localiser.localiser import Localiser


@dataclass(frozen=True)
class Database:
    """The photos with known positions: features and manifest, row by row."""

    reader: FeatureReader
    manifest: Manifest

    @classmethod
    def open(cls, features: StoragePath, manifest: Path, localiser: Localiser) -> Database:
        """Return the database; see `open_split` for the errors."""
        return cls(*open_split(features, manifest, localiser))


def open_split(
    features: StoragePath, manifest: Path, localiser: Localiser, *, crop_at: float | None = None
) -> tuple[FeatureReader, Manifest]:
    """Return the features and the manifest of a split, or of a crop of its images besides the centre.

    Raises
    ------
    RecipeMismatch
        If the localiser was trained on features of another recipe.
    InputError
        If the store was made for other images.
    StoreError
        If features are not extracted yet.
    """
    reader, rows = FeatureReader.open(features), Manifest.open(manifest)
    recipe = localiser.recipe
    if crop_at is not None:
        recipe = replace(recipe, preprocessing={**recipe.preprocessing, "crop_at": crop_at})
    differences = recipe.differences(reader.recipe)
    if differences:
        raise RecipeMismatch(
            f"the localiser was trained on features with other settings than {features} "
            f"({'; '.join(differences)}): run `pipeline train-heads` again"
        )
    require_same_rows(reader.store, rows)
    reader.require_complete()
    return reader, rows
