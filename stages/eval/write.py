"""The files of an evaluation: metrics.json, details.json, predictions.parquet and the LR@N curve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.eval.config import EvalConfig
from stages.eval.localisers.answers import QueryAnswers
from stages.eval.metrics.breakdown import buckets
from stages.eval.plots.curves import LOCALISERS, Curve
from stages.eval.queries import Queries
from stages.files import replacing, write_table
from stages.index.utm_zone import Zone
from stages.models.localiser.recall import recall_percent
from stages.partition.places import Places


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, atomically."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_curve(path: Path, config: EvalConfig, answers: QueryAnswers) -> None:
    """Write LR@N in percent for N = 1, 2, ... as CSV, a column per localiser."""
    tops = range(1, config.depth + 1)
    recalls = [recall_percent(errors, config.radius_m, tops) for errors in answers.errors_m.values()]
    rows = ((top, *(round(recall[top], 3) for recall in recalls)) for top in tops)
    Curve(("n", *answers.errors_m), tuple(rows)).save(path, LOCALISERS)


def write_predictions(
    path: Path,
    config: EvalConfig,
    places: Places,
    queries: Queries,
    answers: QueryAnswers,
    origin: dict[str, str],
) -> None:
    """Write one row per query: truth, answers of each localiser, errors, confidence.

    ``predicted_*``, ``error_m`` and ``correct@N`` are those of `classify`;
    ``class_ids`` and ``scores`` its single cells, best first;
    ``cell`` is the size of the true cell (head, mid, tail or none), ``unit`` the independent unit that
    intervals and tests resample;
    ``answers_east`` and ``answers_north`` its answers, best first. If the UTM zone is known, ``latitude`` and
    ``longitude`` are the truth, ``predicted_latitude`` ... the first answers in degrees.
    The note keeps `origin`, digests of the files that belong to these predictions.
    """
    zone = queries.manifest.zone
    columns: dict[str, Any] = {"key": pa.array(queries.keys(), pa.string())}
    columns |= _point_columns("utm", queries.truth, zone)
    for name, result in answers.results.items():
        prefix = "predicted" if name == "classify" else name
        columns |= _point_columns(prefix, result.positions[:, 0], zone)
        error = "error_m" if name == "classify" else f"{name}_error_m"
        columns[error] = answers.errors_m[name][:, 0].copy()
        columns["confidence" if name == "classify" else f"{name}_confidence"] = answers.confidence(name)
    positions, cells = answers.results["classify"].positions, answers.cells
    columns |= {
        "score": cells.score[:, 0].copy(),
        "abstain": answers.abstain,
        "outside": queries.outside,
        "cell": pa.array(buckets(places, queries.truth)),
        "unit": queries.units.number,
        "class_ids": pa.array(list(cells.class_id), pa.list_(pa.int64())),
        "scores": pa.array(list(cells.score), pa.list_(pa.float32())),
        "answers_east": pa.array(list(positions[:, :, 0]), pa.list_(pa.float64())),
        "answers_north": pa.array(list(positions[:, :, 1]), pa.list_(pa.float64())),
    }
    within = answers.errors_m["classify"] <= config.radius_m
    for top in config.top:
        columns[f"correct@{top}"] = within[:, :top].any(axis=1)
    note = {"score": config.score, "radius_m": config.radius_m, "zone": zone, "origin": origin}
    write_table(path, pa.table(columns), note)


def _point_columns(prefix: str, positions: npt.NDArray[np.float64], zone: str) -> dict[str, Any]:
    """Return the columns of points (Q, 2) in metres, and in degrees if the zone is known."""
    columns = {f"{prefix}_east": positions[:, 0], f"{prefix}_north": positions[:, 1]}
    if zone:
        before = "" if prefix == "utm" else f"{prefix}_"
        latlon = Zone.of(zone).degrees(positions)
        columns |= {f"{before}latitude": latlon[:, 0], f"{before}longitude": latlon[:, 1]}
    return {name: column.copy() for name, column in columns.items()}
