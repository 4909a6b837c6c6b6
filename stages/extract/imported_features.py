"""Checks of features to import: what is rejected, what becomes a bad row, and what is only reported."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cache.recipe import Recipe
from cache.writer import rows_not_finite
from stages.errors import InputError
from stages.extract.config import IMPORTED
from stages.extract.feature_files import FeatureFile, Features
from stages.files import Progress
from stages.index.manifest import Manifest

OUTPUT = "imported"
LARGEST_FLOAT16 = 65_504.0
ABSENT = "no feature in the imported file"
LARGE = "stored, but above 65,504, the largest float16 value"
NOT_A_NUMBER = "NaN in the imported file"
INFINITE = "infinite in the imported file"
INFINITE_FLOAT16 = f"{INFINITE}: probably above 65,504, the largest float16 value; save it as float32"
TOO_LARGE = "above the largest float32 value in the imported file"
_ROWS_AT_ONCE = 8192


@dataclass
class ImportReport:
    """Rows of an import that need attention: number and first example by reason, bad rows or not."""

    bad: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, row: int, key: str, detail: str = "") -> None:
        """Count a row."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.examples.setdefault(reason, f"row {row}, {key}{detail}")

    def facts(self) -> list[tuple[str, object]]:
        """Return a line for each reason: how many rows, and the first of them."""
        return [
            (reason, f"{count:,} (first: {self.examples[reason]})") for reason, count in self.counts.items()
        ]

    def words(self) -> str:
        """Return the reasons in one line."""
        return "; ".join(f"{reason}: {count}" for reason, count in self.facts())


def recipe_of(file: FeatureFile, name: str) -> Recipe:
    """Return the recipe of features that `name` stands for; floats wider than float16 become float32."""
    dtype = "float16" if file.dtype == np.float16 else "float32"
    identity = hashlib.sha256(name.encode()).hexdigest()
    return Recipe(IMPORTED, name, identity, 0, {"made by": name}, {OUTPUT: file.length}, dtype, dtype)


def check(
    file: FeatureFile, manifest: Manifest, absent_share: float, progress: Progress | None = None
) -> ImportReport:
    """Read all features once and say what is wrong with them.

    Raises
    ------
    InputError
        If no row has a valid feature, or more than `absent_share` of the images have none in the file.
    """
    report = ImportReport()
    for start in range(0, manifest.rows, _ROWS_AT_ONCE):
        keys = manifest.keys(start, start + _ROWS_AT_ONCE)
        features, reasons = read_checked(file, start, keys)
        for row, reason in reasons.items():
            report.add(reason, start + row, keys[row])
        report.bad += len(reasons)
        large = features.dtype != np.float16 and (np.abs(features) > LARGEST_FLOAT16).any(axis=1)
        for row in np.flatnonzero(large).tolist():
            if row not in reasons:
                report.add(LARGE, start + row, keys[row], f": {np.abs(features[row]).max():,.0f}")
        if progress is not None:
            progress(start + len(keys), manifest.rows)
    absent = report.counts.get(ABSENT, 0)
    if report.bad == manifest.rows:
        raise InputError(f"{file.path} has no valid feature: {report.words()}; nothing was imported")
    if absent > absent_share * manifest.rows:
        raise InputError(
            f"{file.path} lacks {absent:,} of the {manifest.rows:,} images (first: "
            f"{report.examples[ABSENT]}), more than extract.max_bad_fraction, {absent_share}: "
            "use the same names as in the positions file; nothing was imported"
        )
    return report


def read_checked(file: FeatureFile, start: int, keys: Sequence[str]) -> tuple[Features, dict[int, str]]:
    """Return the features (n, F) of images in the type of the store, and why rows of these are bad."""
    raw, exists = file.read(start, keys)
    features = raw
    if raw.dtype != np.float16:
        with np.errstate(over="ignore"):
            features = raw.astype(np.float32)
    faulty = np.flatnonzero(~exists | rows_not_finite(features))
    return features, {int(row): _reason(raw[row], bool(exists[row])) for row in faulty}


def _reason(feature: npt.NDArray[np.floating], exists: bool) -> str:
    if not exists:
        return ABSENT
    if np.isnan(feature).any():
        return NOT_A_NUMBER
    if np.isfinite(feature).all():
        return TOO_LARGE
    return INFINITE_FLOAT16 if feature.dtype == np.float16 else INFINITE
