"""The features and manifest of a split, checked against the localiser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cache.errors import RecipeMismatch
from cache.reader import FeatureReader
from cache.storage.paths import StoragePath
from stages.errors import InputError
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
        return cls(*open_split("database", features, manifest, localiser))


def open_split(
    split: str, features: StoragePath, manifest: Path, localiser: Localiser
) -> tuple[FeatureReader, Manifest]:
    """Return the features and the manifest of a split.

    Raises
    ------
    RecipeMismatch
        If the localiser was trained on features of another recipe.
    InputError
        If store and manifest differ in length.
    StoreError
        If features are not extracted yet.
    """
    reader, rows = FeatureReader.open(features), Manifest.open(manifest)
    differences = localiser.recipe.differences(reader.recipe)
    if differences:
        raise RecipeMismatch(
            f"the localiser was trained on features with other settings than {features} "
            f"({'; '.join(differences)}): run `pipeline train-heads` again"
        )
    if reader.rows != rows.rows:
        raise InputError(
            f"{features} holds {reader.rows} rows, {manifest} has {rows.rows}: "
            f"run `pipeline extract --split {split}`"
        )
    reader.require_complete()
    return reader, rows
