"""The whole evaluation: localiser and queries in; metrics, predictions and curve out."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.neighbors import KDTree

from cache.errors import RecipeMismatch
from cache.reader import FeatureReader
from stages.classes import ClassTable
from stages.errors import InputError
from stages.eval.config import EvalConfig
from stages.localiser import Localiser, Predictions
from stages.manifest import Manifest
from stages.parquet import replacing, write_table
from stages.recall import errors_m, recall_percent


@dataclass(frozen=True)
class EvalResult:
    """How well queries are localised.

    Attributes
    ----------
    recall : dict of int to float
        LR@N in percent by N; an unreadable query counts as not localised.
    queries, unreadable : int
        All queries, and those among them without a feature.
    chance, ceiling : float
        Percent: LR@1 of answering with a class at random; queries within the
        radius of some class's centre, which no localiser can exceed.
    median_error_m : float
        Of the first predictions, readable queries only; NaN if there are none.
    score, radius_m : str, float
        As configured.
    weights : str
        Setting the backbone's weights came from; "random" means an untrained backbone.
    """

    recall: dict[int, float]
    queries: int
    unreadable: int
    chance: float
    ceiling: float
    median_error_m: float
    score: str
    radius_m: float
    weights: str

    def metrics(self) -> dict[str, dict[str, Any]]:
        """Return the content of metrics.json."""
        numbers: dict[str, Any] = {f"LR@{top}": round(value, 3) for top, value in self.recall.items()}
        numbers |= {
            "queries": self.queries,
            "unreadable": self.unreadable,
            "chance": round(self.chance, 3),
            "ceiling": round(self.ceiling, 3),
            "median_error_m": None if np.isnan(self.median_error_m) else round(self.median_error_m, 2),
            "radius_m": self.radius_m,
            "score": self.score,
            "weights": self.weights,
        }
        return {"classify": numbers}

    def facts(self) -> list[tuple[str, object]]:
        """Return (name, value) pairs for a person to read."""
        facts = [(name.replace("_", " "), value) for name, value in self.metrics()["classify"].items()]
        if self.weights == "random":
            facts.append(("note", "the backbone is untrained (random weights): expect about chance"))
        return facts


def run(
    config: EvalConfig,
    *,
    localiser: Path,
    features: Path,
    manifest: Path,
    metrics: Path,
    predictions: Path,
    curve: Path,
    device: str = "cpu",
) -> EvalResult:
    """Localise every query and write how well it went.

    Parameters
    ----------
    config : EvalConfig
        Score, radius, values of N.
    localiser : Path
        The localiser's folder.
    features, manifest : Path
        Feature store and manifest of the queries.
    metrics : Path
        JSON for `dvc metrics`, {"classify": {"LR@1": percent, ...}}.
    predictions : Path
        Parquet, one row per query in manifest order.
    curve : Path
        CSV with columns n and recall for `dvc plots`.
    device : str
        Where to compute.

    Raises
    ------
    StoreError
        If queries are not extracted yet.
    RecipeMismatch
        If the queries' features were made otherwise than those the localiser was trained on.
    InputError
        If the files do not belong together.
    """
    trained, reader, queries = (
        Localiser.load(localiser, device),
        FeatureReader.open(features),
        Manifest.open(manifest),
    )
    _require_fit(trained, reader, queries)
    depth = max(config.top)
    found = _predict(trained, reader, depth, config)
    truth = queries.positions()
    errors = errors_m(found.positions, truth)
    recall = recall_percent(errors, config.radius_m, range(1, depth + 1))
    chance, ceiling = _bounds(trained.classes, truth, config.radius_m)
    readable = errors[reader.valid, 0]
    result = EvalResult(
        recall={top: recall[top] for top in config.top},
        queries=len(truth),
        unreadable=int((~reader.valid).sum()),
        chance=chance,
        ceiling=ceiling,
        median_error_m=float(np.median(readable)) if len(readable) else float("nan"),
        score=config.score,
        radius_m=config.radius_m,
        weights=trained.recipe.weights,
    )
    _write_json(metrics, result.metrics())
    _write_predictions(predictions, queries, found, errors, config)
    _write_curve(curve, recall)
    return result


def _require_fit(localiser: Localiser, reader: FeatureReader, queries: Manifest) -> None:
    differences = localiser.recipe.differences(reader.recipe)
    if differences:
        raise RecipeMismatch(
            f"the localiser was trained on other features than {reader.store.path} holds "
            f"({'; '.join(differences)}): run `pipeline train-heads` again"
        )
    if reader.rows != queries.rows:
        raise InputError(
            f"{reader.store.path} holds {reader.rows} rows, {queries.path} has {queries.rows}: "
            "run `pipeline extract --split queries`"
        )
    if queries.zone and localiser.classes.zone and queries.zone != localiser.classes.zone:
        raise InputError(
            f"queries lie in UTM zone {queries.zone}, the classes in {localiser.classes.zone}: "
            "index both from one data set with `pipeline index`"
        )
    reader.require_complete()


def _predict(localiser: Localiser, reader: FeatureReader, top: int, config: EvalConfig) -> Predictions:
    """Predictions of all rows; an unreadable row has none (class -1, position NaN)."""
    class_id = np.full((reader.rows, top), -1, np.int64)
    score = np.full((reader.rows, top), -np.inf, np.float32)
    positions = np.full((reader.rows, top, 2), np.nan)
    for start, stop in reader.blocks():
        rows = start + np.flatnonzero(reader.valid[start:stop])
        if len(rows):
            block = reader.read(start, stop, localiser.inputs)[rows - start]
            found = localiser.predict(block, top=top, score=config.score)
            class_id[rows], score[rows], positions[rows] = found.class_id, found.score, found.positions
    return Predictions(class_id, score, positions)


def _bounds(classes: ClassTable, truth: npt.NDArray[np.float64], radius_m: float) -> tuple[float, float]:
    """Chance and ceiling of LR@1 in percent."""
    if not len(truth) or not len(classes):
        return 0.0, 0.0
    near = KDTree(classes.centres).query_radius(truth, radius_m, count_only=True)
    return 100 * float(near.mean()) / len(classes), 100 * float((near > 0).mean())


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_curve(path: Path, recall: dict[int, float]) -> None:
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("n", "recall"))
        writer.writerows((top, round(value, 3)) for top, value in recall.items())


def _write_predictions(
    path: Path,
    queries: Manifest,
    found: Predictions,
    errors: npt.NDArray[np.float64],
    config: EvalConfig,
) -> None:
    truth, first = queries.positions(), found.positions[:, 0]
    columns: dict[str, Any] = {
        "key": pa.array(queries.keys(0, queries.rows), pa.string()),
        "utm_east": truth[:, 0].copy(),
        "utm_north": truth[:, 1].copy(),
        "predicted_east": first[:, 0].copy(),
        "predicted_north": first[:, 1].copy(),
        "error_m": errors[:, 0].copy(),
        "score": found.score[:, 0].copy(),
        "class_ids": pa.array(list(found.class_id), pa.list_(pa.int64())),
        "scores": pa.array(list(found.score), pa.list_(pa.float32())),
    }
    within = errors <= config.radius_m
    for top in config.top:
        columns[f"correct@{top}"] = within[:, :top].any(axis=1)
    note = {"score": config.score, "radius_m": config.radius_m, "zone": queries.zone}
    write_table(path, pa.table(columns), note)
