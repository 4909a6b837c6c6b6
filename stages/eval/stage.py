"""The evaluation stage: localiser, queries and database -> metrics, predictions and the LR@N curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cache.reader import FeatureReader
from cache.storage.paths import StoragePath
from stages.eval.config import EvalConfig
from stages.eval.localisers.answers import QueryAnswers
from stages.eval.localisers.database import Database, open_split
from stages.eval.metrics.metric_blocks import (
    breakdown_block,
    confidence_block,
    localiser_block,
    score_block,
    session_blocks,
    set_blocks,
)
from stages.eval.metrics.reach import Reach
from stages.eval.queries import Queries, require_zone
from stages.eval.result import EvalResult
from stages.eval.write import write_curve, write_json, write_predictions
from stages.files import sha256_of
from stages.images.preprocess import more_crops
from stages.models.localiser.io import digest_of_folder
from stages.models.localiser.localiser import Localiser

__all__ = ["EvalInputs", "EvalResult", "run"]


@dataclass(frozen=True)
class EvalInputs:
    """The settings and files of an evaluation.

    Attributes
    ----------
    features, manifest : StoragePath, Path
        Feature store and manifest of the queries.
    metrics : Path
        JSON for `dvc metrics` to write: the few numbers by which runs are compared.
    details : Path
        JSON to write: all numbers, a block per localiser, {"classify": {"LR@1": percent, ...}, ...}.
    timings : Path
        JSON to write: how long each localiser took. DVC does not track it, because no two runs take as long.
    predictions : Path
        Parquet to write: one row per query, in manifest order.
    curve : Path
        CSV for `dvc plots` to write: LR@N over N, a column per localiser.
    database, database_manifest : StoragePath, Path, or None
        Feature store and manifest of the database; `retrieve` and `hybrid` need them.
    crops : mapping of float to StoragePath
        Feature stores of crops of the queries besides the centre, by `Preprocess.crop_at`.
    """

    config: EvalConfig
    localiser: Path
    features: StoragePath
    manifest: Path
    metrics: Path
    details: Path
    timings: Path
    predictions: Path
    curve: Path
    database: StoragePath | None = None
    database_manifest: Path | None = None
    device: str = "cpu"
    crops: Mapping[float, StoragePath] = field(default_factory=dict)


def run(inputs: EvalInputs) -> EvalResult:
    """Localise the queries and write the metrics, the predictions and the LR@N curve.

    Raises
    ------
    StoreError
        If features are not extracted yet.
    RecipeMismatch
        If the localiser was trained on features of another recipe.
    InputError
        If the files do not belong together.
    """
    config = inputs.config
    localiser = Localiser.load(inputs.localiser, inputs.device).freeze()
    reader, manifest = open_split(inputs.features, inputs.manifest, localiser)
    require_zone(manifest, localiser)
    database = None
    if inputs.database is not None and inputs.database_manifest is not None:
        database = Database.open(inputs.database, inputs.database_manifest, localiser)
        require_zone(database.manifest, localiser)
    crops = [reader, *_open_crops(inputs, localiser)]
    queries = Queries.load(crops, manifest, localiser, database, config)
    answers = QueryAnswers.of(localiser, database, queries, config, inputs.predictions.parent)
    result = measure(localiser, queries, answers, config)
    write_json(inputs.metrics, result.metrics())
    write_json(inputs.details, result.details())
    write_json(inputs.timings, result.timings())
    write_curve(inputs.curve, config, answers)
    # Last, with digests of the others: a kill in between leaves files that the report rejects.
    origin = {
        "details": sha256_of(inputs.details),
        "curve": sha256_of(inputs.curve),
        "queries": manifest.digest,
        "partition": localiser.classes.origin.get("partition", ""),
        "localiser": digest_of_folder(inputs.localiser),
    }
    write_predictions(inputs.predictions, config, localiser.places, queries, answers, origin)
    return result


def _open_crops(inputs: EvalInputs, localiser: Localiser) -> list[FeatureReader]:
    """Return the features of the queries' crops besides the centre."""
    positions = more_crops(inputs.config.crops, localiser.recipe.preprocessing)
    return [
        open_split(inputs.crops[position], inputs.manifest, localiser, crop_at=position)[0]
        for position in positions
    ]


def measure(localiser: Localiser, queries: Queries, answers: QueryAnswers, config: EvalConfig) -> EvalResult:
    """Return the metrics of the answers."""
    fused, centres = config.score == "fused", localiser.places.centres
    return EvalResult(
        blocks={name: localiser_block(name, answers, queries, config) for name in answers.results},
        queries=len(queries.rows),
        unreadable=int((~queries.readable).sum()),
        skipped=queries.manifest.skipped,
        resampled=queries.units.kind,
        units=queries.units.count,
        reach=Reach.of(centres, queries.truth, config.radius_m, fused=fused),
        score=config.score,
        radius_m=config.radius_m,
        weights=localiser.recipe.weights,
        scores=score_block(localiser, queries, config),
        confidence=confidence_block(localiser, answers, queries, config),
        breakdown=breakdown_block(localiser.places, answers, queries, config),
        sets=set_blocks(answers, queries, config),
        sessions=session_blocks(answers, queries, config),
    )
