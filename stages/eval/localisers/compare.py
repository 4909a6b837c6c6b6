"""The localisers of an evaluation, each timed on the same queries."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stages.errors import InputError
from stages.eval.config import EvalConfig
from stages.eval.localisers.cell_index import CellIndex
from stages.eval.localisers.database import Database
from stages.eval.localisers.hybrid import Hybrid
from stages.eval.localisers.retrieval import PhotoSpace, nearest_photos
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import Answers, Predictions, answer, predict
from stages.models.localiser.scoring import Score

Features = npt.NDArray[np.floating]
FLOAT16_BYTES = 2


@dataclass(frozen=True)
class LocaliserResult:
    """The answers of one localiser to the readable queries.

    Attributes
    ----------
    positions : ndarray of float64, shape (Q, top, 2)
        Metres, best first, NaN for no answer.
    seconds : float
        From features to positions, for all queries.
    index_bytes : int
        Memory needed to answer: prototypes, vectors of photos, tables.
    answers : Answers or None
        With confidences, from `classify` with fused scores.
    look_ahead : tuple of float and int, or None
        Of `sequence`: the most seconds and photos after a query that its answer is based on.
    """

    positions: npt.NDArray[np.float64]
    seconds: float
    index_bytes: int
    answers: Answers | None = None
    look_ahead: tuple[float, int] | None = None

    def for_all(self, readable: npt.NDArray[np.bool_]) -> LocaliserResult:
        """Return the result with a row for every query; an unreadable one has no position."""
        positions = np.full((len(readable), *self.positions.shape[1:]), np.nan)
        positions[readable] = self.positions
        return replace(self, positions=positions)


def cell_ranking(localiser: Localiser, features: Features, config: EvalConfig) -> Predictions:
    """Return single classes ranked by the configured score; `fused` ranks them by the calibrated score."""
    score: Score = "calibrated" if localiser.calibration is not None else "cosine"
    if config.score == "cosine" or config.score == "softmax":
        score = config.score
    return predict(localiser, features, top=config.depth, score=score)


def classify(localiser: Localiser, features: Features, config: EvalConfig) -> LocaliserResult:
    """Return the answers of the heads, ranked class by class (4.20, 4.21) or fused over all groups."""
    started, answers = time.perf_counter(), None
    if config.score == "fused":
        fusion, radius_m = config.fusion, config.radius_m
        answers = answer(localiser, features, top=config.depth, fusion=fusion, radius_m=radius_m)
        positions = answers.positions
    else:
        positions = cell_ranking(localiser, features, config).positions
    return LocaliserResult(positions, time.perf_counter() - started, model_bytes(localiser), answers)


def retrieve(
    localiser: Localiser, database: Database, features: Features, config: EvalConfig
) -> LocaliserResult:
    """Return the positions of the most similar photos of the whole database."""
    space, positions = PhotoSpace(localiser, config.space), database.manifest.positions()
    started = time.perf_counter()
    photos = nearest_photos(space.vectors(features), database.reader, space, config.depth)
    answers = np.where(photos.rows[:, :, None] >= 0, positions[np.maximum(photos.rows, 0)], np.nan)
    seconds = time.perf_counter() - started
    return LocaliserResult(answers, seconds, _photo_bytes(database, space) + positions.nbytes)


def hybrid(
    localiser: Localiser,
    database: Database,
    features: Features,
    config: EvalConfig,
    folder: Path,
) -> LocaliserResult:
    """Return positions fused from the best photos in and around the best cells; see `compare`."""
    space = PhotoSpace(localiser, config.space)
    positions, cell_m = database.manifest.positions(), localiser.classes.cell_m
    index = CellIndex.build(database.reader, positions, space, cell_m, folder)
    ranker = Hybrid(space, index, config.hybrid, config.fusion, config.radius_m)
    started = time.perf_counter()
    fused = ranker.locate(features, config.depth)
    seconds = time.perf_counter() - started
    return LocaliserResult(fused.positions, seconds, model_bytes(localiser) + index.nbytes)


def model_bytes(localiser: Localiser) -> int:
    """Return the bytes of the localiser's weights, exemplars and class centres."""
    exemplars = {} if localiser.exemplars is None else localiser.exemplars.tensors()
    tensors = [*localiser.tensors().values(), *exemplars.values()]
    return sum(value.numel() * value.element_size() for value in tensors) + localiser.places.centres.nbytes


def compare(
    localiser: Localiser,
    database: Database | None,
    features: Features,
    config: EvalConfig,
    folder: Path,
) -> dict[str, LocaliserResult]:
    """Return the result of each configured localiser by its name.

    `folder` is on the disk that holds the index of `hybrid` meanwhile.

    Raises
    ------
    InputError
        If a localiser needs the database and there is none.
    """
    results = {"classify": classify(localiser, features, config)}
    for name in ("retrieve", "hybrid"):
        if name not in config.localisers:
            continue
        if database is None:
            raise InputError(f"{name} needs the database's features and manifest: run `pipeline extract`")
        if name == "retrieve":
            results[name] = retrieve(localiser, database, features, config)
        else:
            results[name] = hybrid(localiser, database, features, config, folder)
    return results


def _photo_bytes(database: Database, space: PhotoSpace) -> int:
    return database.reader.rows * space.length * FLOAT16_BYTES
