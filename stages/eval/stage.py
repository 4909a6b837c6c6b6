"""The whole evaluation: localiser, queries and database in; metrics, predictions and curve out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import KDTree

from cache.reader import FeatureReader
from cache.storage.paths import StoragePath
from stages.eval.config import EvalConfig
from stages.eval.localisers.compare import Database, LocaliserResult, cell_ranking, compare, spread
from stages.eval.metrics.breakdown import buckets, by_value, conditions, distances, intervals
from stages.eval.metrics.reliability import reliability, risk_coverage, separation
from stages.eval.queries import Queries, require_fit
from stages.eval.result import Block, EvalResult, Number, median, tidy
from stages.eval.write import write_curve, write_json, write_predictions
from stages.index.manifest import Manifest
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import answer, predict
from stages.models.localiser.recall import errors_m, recall_percent
from stages.models.localiser.scoring import Score
from stages.models.localiser.topk import Predictions
from stages.partition.places import Places

__all__ = ["EvalResult", "run"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def run(
    config: EvalConfig,
    *,
    localiser: Path,
    features: StoragePath,
    manifest: Path,
    metrics: Path,
    predictions: Path,
    curve: Path,
    database: StoragePath | None = None,
    database_manifest: Path | None = None,
    device: str = "cpu",
) -> EvalResult:
    """Localise the queries and write how well it went.

    Parameters
    ----------
    config : EvalConfig
        Localisers, score, radius, values of N.
    localiser : Path
        The localiser's folder.
    features, manifest : Path
        Feature store and manifest of the queries.
    metrics : Path
        JSON for `dvc metrics`: a block per localiser, {"classify": {"LR@1": percent, ...}, ...}.
    predictions : Path
        Parquet, one row per query looked at, in manifest order.
    curve : Path
        CSV of LR@N over n, a column per localiser, for `dvc plots`.
    database, database_manifest : Path, optional
        Feature store and manifest of the database; `retrieve` and `hybrid` need them.
    device : str
        Where to compute.

    Raises
    ------
    StoreError
        If features are not extracted yet.
    RecipeMismatch
        If features were made otherwise than those the localiser was trained on.
    InputError
        If the files do not belong together.
    """
    trained = Localiser.load(localiser, device).freeze()
    reader, opened = FeatureReader.open(features), Manifest.open(manifest)
    require_fit(trained, reader, opened)
    photos = None
    if database is not None and database_manifest is not None:
        photos = Database.open(database, database_manifest, trained)
    queries = Queries.load(reader, opened, trained, photos, config)
    depth = max(config.top)
    cells = cell_ranking(trained, queries.features, depth, config)
    said = compare(trained, photos, queries.features, depth, config, predictions.parent)
    found = {name: spread(one, queries.readable) for name, one in said.items()}
    errors = {name: errors_m(one.positions, queries.truth) for name, one in found.items()}
    confidence, abstain = _confidence(found["classify"], queries.readable)
    chance, ceiling = _bounds(trained.places, queries.truth, config.radius_m)
    result = EvalResult(
        blocks={name: _block(found[name], errors[name], queries, config) for name in found},
        queries=len(queries.rows),
        unreadable=int((~queries.readable).sum()),
        chance=chance,
        ceiling=ceiling,
        score=config.score,
        radius_m=config.radius_m,
        weights=trained.recipe.weights,
        scores=_scores(trained, queries, config),
        confidence=_quality(confidence, abstain, errors["classify"][:, 0], queries, config),
        breakdown=_breakdown(trained.places, queries, errors["classify"][:, 0] <= config.radius_m),
    )
    write_json(metrics, result.metrics())
    tops = range(1, depth + 1)
    write_curve(curve, {name: recall_percent(errors[name], config.radius_m, tops) for name in errors})
    write_predictions(
        predictions,
        config,
        keys=queries.keys(),
        truth=queries.truth,
        zone=opened.zone,
        cells=_spread_cells(cells, queries.readable),
        found=found,
        errors=errors,
        confidence=confidence,
        abstain=abstain,
        outside=queries.outside,
    )
    return result


def _spread_cells(cells: Predictions, readable: Bools) -> Predictions:
    """The same with a row for every query: class -1 where it is unreadable."""
    shape = (len(readable), cells.class_id.shape[1])
    class_id, score = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
    positions = np.full((*shape, 2), np.nan)
    class_id[readable], score[readable], positions[readable] = cells.class_id, cells.score, cells.positions
    return Predictions(class_id, score, positions)


def _confidence(found: LocaliserResult, readable: Bools) -> tuple[Floats, Bools]:
    """Confidence and abstention of every query: 0 and True where it is unreadable, NaN where unknown."""
    confidence, abstain = np.full(len(readable), np.nan), np.zeros(len(readable), np.bool_)
    if found.answers is not None:
        confidence[readable], abstain[readable] = found.answers.confidence, found.answers.abstain
    confidence[~readable], abstain[~readable] = 0.0, True
    return confidence, abstain


def _block(found: LocaliserResult, errors: Floats, queries: Queries, config: EvalConfig) -> Block:
    return Block(
        recall=recall_percent(errors, config.radius_m, config.top),
        interval=intervals(errors, config.radius_m, config.top, config.bootstrap, config.seed),
        median_error_m=median(errors[queries.readable, 0]),
        ms_per_query=1000 * found.seconds / max(1, int(queries.readable.sum())),
        index_bytes=found.index_bytes,
    )


def _scores(localiser: Localiser, queries: Queries, config: EvalConfig) -> dict[str, Number]:
    """LR@1 and LR@5 of every way to compare groups, and which has the best LR@1."""
    depth, features = 5, queries.features
    names: list[Score] = ["softmax", "cosine"]
    if localiser.calibration is not None:
        names.append("calibrated")
    ways = {name: predict(localiser, features, top=depth, score=name).positions for name in names}
    fused = answer(localiser, features, top=depth, fusion=config.fusion, radius_m=config.radius_m).positions
    numbers: dict[str, Number] = {}
    first: dict[str, float] = {}
    for name, positions in [*ways.items(), ("fused", fused)]:
        every = np.full((len(queries.rows), depth, 2), np.nan)
        every[queries.readable] = positions
        recall = recall_percent(errors_m(every, queries.truth), config.radius_m, (1, depth))
        first[name] = recall[1]
        numbers |= {f"{name} LR@{top}": round(value, 3) for top, value in recall.items()}
    return {**numbers, "best": max(first, key=lambda name: first[name])}


def _quality(
    confidence: Floats, abstain: Bools, errors: Floats, queries: Queries, config: EvalConfig
) -> dict[str, Number]:
    """How much confidences can be trusted; nothing if there are none."""
    known = np.isfinite(confidence) & queries.readable
    if not known.any():
        return {}
    stated, right, outside = confidence[known], (errors <= config.radius_m)[known], queries.outside[known]
    curve = risk_coverage(stated, right)
    return {
        "ECE": tidy(reliability(stated, right).error, 3),
        "mean": tidy(100 * stated.mean(), 3),
        "AUROC right": tidy(separation(stated, right), 4),
        "AUROC outside": tidy(separation(stated, ~outside), 4),
        "outside queries": int(outside.sum()),
        "abstained": tidy(100 * abstain[known].mean(), 3),
        "abstained outside": tidy(100 * abstain[known][outside].mean(), 3) if outside.any() else None,
        "risk at 50 %": tidy(100 * curve.risk_at(0.5), 3),
        "risk at 80 %": tidy(100 * curve.risk_at(0.8), 3),
        "AURC": tidy(curve.area, 4),
    }


def _breakdown(places: Places, queries: Queries, right: Bools) -> dict[str, float]:
    numbers = by_value("cell", buckets(places, queries.truth), right)
    numbers |= by_value("centre", distances(places, queries.truth), right)
    for name, values in conditions(queries.manifest, queries.rows):
        numbers |= by_value(name, values, right)
    return numbers


def _bounds(places: Places, truth: Floats, radius_m: float) -> tuple[float, float]:
    """Chance and ceiling of LR@1 in percent."""
    if not len(truth) or not len(places):
        return 0.0, 0.0
    near = KDTree(places.centres).query_radius(truth, radius_m, count_only=True)
    return 100 * float(near.mean()) / len(places), 100 * float((near > 0).mean())
