"""The localisers that one evaluation compares, each timed on the same queries."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.errors import RecipeMismatch
from cache.reader import FeatureReader
from cache.storage.paths import StoragePath
from stages.errors import InputError
from stages.eval.config import EvalConfig
from stages.eval.localisers.cell_index import CellIndex
from stages.eval.localisers.hybrid import Hybrid
from stages.eval.localisers.retrieval import PhotoSpace, nearest_photos
from stages.index.manifest import Manifest
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import Answers, answer, predict
from stages.models.localiser.topk import Predictions

Features = npt.NDArray[np.floating]
FLOAT16_BYTES = 2


@dataclass(frozen=True)
class LocaliserResult:
    """What one localiser says of the readable queries.

    Attributes
    ----------
    positions : ndarray of float64, shape (Q, top, 2)
        Metres, best first, NaN for none.
    seconds : float
        From features to positions, for all queries.
    index_bytes : int
        What must be at hand to answer: prototypes, vectors of photos, tables.
    answers : Answers or None
        With confidences, from `classify` with fused scores.
    """

    positions: npt.NDArray[np.float64]
    seconds: float
    index_bytes: int
    answers: Answers | None = None


@dataclass(frozen=True)
class Database:
    """The photos whose position is known: features and manifest, row by row."""

    reader: FeatureReader
    manifest: Manifest

    @classmethod
    def open(cls, features: StoragePath, manifest: Path, localiser: Localiser) -> Database:
        """Return the database, found to fit the localiser.

        Raises
        ------
        RecipeMismatch
            If its features were made otherwise than those the localiser was trained on.
        InputError
            If store and manifest do not belong together.
        StoreError
            If it is not extracted yet.
        """
        reader, photos = FeatureReader.open(features), Manifest.open(manifest)
        differences = localiser.recipe.differences(reader.recipe)
        if differences:
            raise RecipeMismatch(
                f"the localiser was trained on other features than {features} holds "
                f"({'; '.join(differences)}): run `pipeline train-heads` again"
            )
        if reader.rows != photos.rows:
            raise InputError(
                f"{features} holds {reader.rows} rows, {manifest} has {photos.rows}: "
                "run `pipeline extract --split database`"
            )
        reader.require_complete()
        return cls(reader, photos)


def cell_ranking(localiser: Localiser, features: Features, top: int, config: EvalConfig) -> Predictions:
    """Return the classes one by one, by the configured score; fused answers rest on the calibrated one."""
    if config.score == "cosine" or config.score == "softmax":
        return predict(localiser, features, top=top, score=config.score)
    score = "calibrated" if localiser.calibration is not None else "cosine"
    return predict(localiser, features, top=top, score=score)  # type: ignore[arg-type]


def classify(localiser: Localiser, features: Features, top: int, config: EvalConfig) -> LocaliserResult:
    """Answers from the heads alone (4.20, 4.21), or from their evidence taken together."""
    begun, answers = time.perf_counter(), None
    if config.score == "fused":
        answers = answer(localiser, features, top=top, fusion=config.fusion, radius_m=config.radius_m)
        positions = answers.positions
    else:
        positions = cell_ranking(localiser, features, top, config).positions
    return LocaliserResult(positions, time.perf_counter() - begun, model_bytes(localiser), answers)


def retrieve(
    localiser: Localiser, database: Database, features: Features, top: int, config: EvalConfig
) -> LocaliserResult:
    """Positions of the most alike photos of the whole database."""
    space, positions = PhotoSpace(localiser, config.space), database.manifest.positions()
    begun = time.perf_counter()
    found = nearest_photos(space.vectors(features), database.reader, space, top)
    places = np.where(found.rows[:, :, None] >= 0, positions[np.maximum(found.rows, 0)], np.nan)
    seconds = time.perf_counter() - begun
    return LocaliserResult(places, seconds, _photo_bytes(database, space) + positions.nbytes)


def hybrid(
    localiser: Localiser,
    database: Database,
    features: Features,
    top: int,
    config: EvalConfig,
    folder: Path | None = None,
) -> LocaliserResult:
    """Positions that the photos in the best cells and around them speak for; the index waits in `folder`."""
    space = PhotoSpace(localiser, config.space)
    positions, cell_m = database.manifest.positions(), localiser.classes.cell_m
    index = CellIndex.build(database.reader, positions, space, cell_m, folder)
    ranker = Hybrid(space, index, config.hybrid, config.fusion, config.radius_m)
    begun = time.perf_counter()
    found = ranker.locate(features, top)
    seconds = time.perf_counter() - begun
    return LocaliserResult(found.positions, seconds, model_bytes(localiser) + index.nbytes)


def model_bytes(localiser: Localiser) -> int:
    """Return the bytes of the localiser's weights, exemplars and class centres."""
    exemplars = {} if localiser.exemplars is None else localiser.exemplars.tensors()
    tensors = [*localiser.tensors().values(), *exemplars.values()]
    return sum(value.numel() * value.element_size() for value in tensors) + localiser.places.centres.nbytes


def compare(
    localiser: Localiser,
    database: Database | None,
    features: Features,
    top: int,
    config: EvalConfig,
    folder: Path | None = None,
) -> dict[str, LocaliserResult]:
    """Return what each configured localiser says, by its name.

    Raises
    ------
    InputError
        If photos are needed and there is no database.
    """
    found = {"classify": classify(localiser, features, top, config)}
    for name in ("retrieve", "hybrid"):
        if name not in config.localisers:
            continue
        if database is None:
            raise InputError(f"{name} needs the database's features and manifest: run `pipeline extract`")
        way = retrieve if name == "retrieve" else partial(hybrid, folder=folder)
        found[name] = way(localiser, database, features, top, config)
    return found


def spread(found: LocaliserResult, readable: npt.NDArray[np.bool_]) -> LocaliserResult:
    """Return the same with a row for every query; an unreadable one has no position."""
    positions = np.full((len(readable), *found.positions.shape[1:]), np.nan)
    positions[readable] = found.positions
    return replace(found, positions=positions)


def _photo_bytes(database: Database, space: PhotoSpace) -> int:
    return database.reader.rows * space.length * FLOAT16_BYTES
