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
from stages.models.localiser.calibration import probabilities
from stages.models.localiser.cell_fusion import share_near
from stages.models.localiser.confidence import HYBRID
from stages.models.localiser.embedded import Embedded
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import Predictions, answer, predict
from stages.models.localiser.scoring import Score

Floats = npt.NDArray[np.float64]
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
    confidence : ndarray of float64, shape (Q,), or None
        Probability that the first answer is right; None or NaN if unknown.
    abstain : ndarray of bool, shape (Q,), or None
        Whether the answer is withheld; of `classify` with fused scores.
    look_ahead : tuple of float and int, or None
        Of `sequence`: the most seconds and photos after a query that its answer is based on.
    """

    positions: npt.NDArray[np.float64]
    seconds: float
    index_bytes: int
    confidence: npt.NDArray[np.float64] | None = None
    abstain: npt.NDArray[np.bool_] | None = None
    look_ahead: tuple[float, int] | None = None

    def for_all(self, readable: npt.NDArray[np.bool_]) -> LocaliserResult:
        """Return the result with a row for every query; an unreadable one has no position, confidence 0."""
        positions = np.full((len(readable), *self.positions.shape[1:]), np.nan)
        positions[readable] = self.positions
        confidence, abstain = np.full(len(readable), np.nan), ~readable
        if self.confidence is not None:
            confidence[readable] = self.confidence
        if self.abstain is not None:
            abstain[readable] = self.abstain
        confidence[~readable] = 0.0
        return replace(self, positions=positions, confidence=confidence, abstain=abstain)


def cell_ranking(localiser: Localiser, queries: Embedded, config: EvalConfig) -> Predictions:
    """Return single classes ranked by the configured score; `fused` ranks them by the calibrated score."""
    score: Score = "calibrated" if localiser.calibration is not None else "cosine"
    if config.score == "cosine" or config.score == "softmax":
        score = config.score
    return predict(localiser, queries, top=config.depth, score=score)


def classify(localiser: Localiser, queries: Embedded, config: EvalConfig) -> LocaliserResult:
    """Return the answers of the heads, ranked class by class (4.20, 4.21) or fused over all groups."""
    started = time.perf_counter()
    if config.score != "fused":
        positions = cell_ranking(localiser, queries, config).positions
        return LocaliserResult(positions, time.perf_counter() - started, model_bytes(localiser))
    fusion, radius_m = config.fusion, config.radius_m
    answers = answer(localiser, queries, top=config.depth, fusion=fusion, radius_m=radius_m)
    seconds = time.perf_counter() - started
    parts = answers.positions, seconds, model_bytes(localiser)
    return LocaliserResult(*parts, confidence=answers.confidence, abstain=answers.abstain)


def retrieve(
    localiser: Localiser, database: Database, queries: Embedded, config: EvalConfig
) -> LocaliserResult:
    """Return the positions of the most similar photos of the whole database."""
    space, positions = PhotoSpace(localiser, config.space), database.manifest.positions()
    started = time.perf_counter()
    count = max(config.depth, config.hybrid.photos)
    photos = nearest_photos(space.vectors(queries), database.reader, space, count)
    answers = np.where(photos.rows[:, :, None] >= 0, positions[np.maximum(photos.rows, 0)], np.nan)
    confidence = _agreement(answers, photos.similarity.astype(np.float64), config)
    seconds = time.perf_counter() - started
    index_bytes = _photo_bytes(database, space) + positions.nbytes
    return LocaliserResult(answers[:, : config.depth], seconds, index_bytes, confidence)


def _agreement(points: Floats, similarity: Floats, config: EvalConfig) -> Floats | None:
    """Return the share of the photos' evidence around the best photo, (Q,); None for frozen features.

    `hybrid.temperature` turns cosines of projected features into evidence; those of frozen features differ
    from backbone to backbone.
    """
    if config.space == "frozen":
        return None
    photos = config.hybrid.photos
    weights = probabilities(similarity[:, :photos] / config.hybrid.temperature)
    reach = {"radius_m": config.radius_m, "edge_m": config.fusion.edge_m}
    return share_near(points[:, 0], points[:, :photos], weights, **reach)


def hybrid(
    localiser: Localiser,
    database: Database,
    queries: Embedded,
    config: EvalConfig,
    folder: Path,
) -> LocaliserResult:
    """Return positions fused from the best photos in and around the best cells; see `compare`."""
    space = PhotoSpace(localiser, config.space)
    positions, cell_m = database.manifest.positions(), localiser.classes.cell_m
    index = CellIndex.build(database.reader, positions, space, cell_m, folder)
    ranker = Hybrid(space, index, config.hybrid, config.fusion, config.radius_m)
    started = time.perf_counter()
    fused = ranker.locate(queries, config.depth)
    seconds = time.perf_counter() - started
    confidence = None if config.space == "frozen" else HYBRID.of(fused.mass[:, 0])
    return LocaliserResult(fused.positions, seconds, model_bytes(localiser) + index.nbytes, confidence)


def model_bytes(localiser: Localiser) -> int:
    """Return the bytes of the localiser's weights, exemplars and class centres."""
    exemplars = {} if localiser.exemplars is None else localiser.exemplars.tensors()
    tensors = [*localiser.tensors().values(), *exemplars.values()]
    return sum(value.numel() * value.element_size() for value in tensors) + localiser.places.centres.nbytes


def compare(
    localiser: Localiser,
    database: Database | None,
    queries: Embedded,
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
    results = {"classify": classify(localiser, queries, config)}
    for name in ("retrieve", "hybrid"):
        if name not in config.localisers:
            continue
        if database is None:
            raise InputError(f"{name} needs the database's features and manifest: run `pipeline extract`")
        if name == "retrieve":
            results[name] = retrieve(localiser, database, queries, config)
        else:
            results[name] = hybrid(localiser, database, queries, config, folder)
    return results


def _photo_bytes(database: Database, space: PhotoSpace) -> int:
    return database.reader.rows * space.length * FLOAT16_BYTES
