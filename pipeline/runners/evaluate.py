"""Evaluate the project's localiser."""

from __future__ import annotations

from pipeline.project.params import Params
from pipeline.project.paths import CROP_SPLITS, Paths


def evaluate(params: Params, paths: Paths, *, device: str) -> None:
    """Localise the queries and write metrics, predictions and curves; see `stages.eval.stage.run`."""
    from stages.eval.stage import EvalInputs, run

    inputs = EvalInputs(
        config=params.eval,
        localiser=paths.localiser,
        features=paths.features("queries"),
        manifest=paths.index("queries"),
        metrics=paths.metrics,
        details=paths.details,
        timings=paths.timings,
        predictions=paths.predictions,
        curve=paths.curve,
        database=paths.features("database"),
        database_manifest=paths.index("database"),
        device=device,
        crops={position: paths.features(split) for position, split in CROP_SPLITS.items()},
    )
    run(inputs)
