"""A project folder with a small trained and evaluated localiser: no images, no backbone."""

from __future__ import annotations

import shutil
from dataclasses import replace

from pipeline.project.init import template
from pipeline.project.paths import Paths
from stages.eval.stage import EvalInputs
from stages.eval.stage import run as evaluate
from stages.partition.classes import ClassTable
from tests.support.training_city import CONFIG, CONFIG_EVAL, FUSION, build_city

BAD_QUERY = 3
ALL = replace(CONFIG_EVAL, localisers=("classify", "retrieve", "hybrid"), score="fused")


def build_project(folder):
    """Train and evaluate a city of 36 cells in `folder`; return the project's paths."""
    paths = Paths(folder, "toy-56")
    city = build_city(folder / "city", side=6, images=200, bad_queries=(BAD_QUERY,))
    table = replace(
        ClassTable.load(city.folder / "partition" / "classes.parquet"), origin={"partition": "1" * 64}
    )
    table.save(city.folder / "partition" / "classes.parquet")
    validation = replace(CONFIG.validation, share=0.2, refit=True)
    city.train(replace(CONFIG, initial_weights="data", max_steps=20, validation=validation), fusion=FUSION)
    for source, target in (
        (city.folder / "localiser", paths.localiser),
        (city.folder / "partition", paths.partition),
        *((city.folder / f"{name}.parquet", paths.index(name)) for name in ("database", "queries")),
        *((city.folder / f"{name}.zarr", paths.tracked_features(name)) for name in ("database", "queries")),
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    shutil.rmtree(city.folder)
    shutil.copy(template("params.yaml"), folder / "params.yaml")
    evaluate_project(paths)
    return paths


def evaluate_project(paths, **changes):
    """Evaluate the project's localiser, as `pipeline eval` does, with changed settings."""
    database = {"database": paths.features("database"), "database_manifest": paths.index("database")}
    inputs = EvalInputs(
        replace(ALL, **changes),
        localiser=paths.localiser,
        features=paths.features("queries"),
        manifest=paths.index("queries"),
        metrics=paths.metrics,
        details=paths.details,
        timings=paths.timings,
        predictions=paths.predictions,
        curve=paths.curve,
        **database,
    )
    return evaluate(inputs)
