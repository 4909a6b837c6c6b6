"""What evaluation writes: metrics.json, predictions.parquet and the LR@N curve."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.eval.config import EvalConfig
from stages.eval.localisers.compare import LocaliserResult
from stages.files import replacing, write_table
from stages.models.localiser.topk import Predictions

Floats = npt.NDArray[np.float64]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, atomically."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_curve(path: Path, recall: dict[str, dict[int, float]]) -> None:
    """Write LR@N in percent over N as CSV, a column per localiser, atomically."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("n", *recall))
        for top in next(iter(recall.values())):
            writer.writerow((top, *(round(values[top], 3) for values in recall.values())))


def write_predictions(
    path: Path,
    config: EvalConfig,
    *,
    keys: list[str],
    truth: Floats,
    zone: str,
    cells: Predictions,
    found: dict[str, LocaliserResult],
    errors: dict[str, Floats],
    confidence: Floats,
    abstain: npt.NDArray[np.bool_],
    outside: npt.NDArray[np.bool_],
) -> None:
    """Write one row per query looked at: truth, answers of each localiser, errors, confidence.

    ``predicted_*``, ``error_m`` and ``correct@N`` are those of `classify`;
    ``class_ids`` and ``scores`` its cells one by one, best first;
    ``answers_east`` and ``answers_north`` its answers, best first.
    """
    columns: dict[str, Any] = {
        "key": pa.array(keys, pa.string()),
        "utm_east": truth[:, 0].copy(),
        "utm_north": truth[:, 1].copy(),
    }
    for name, one in found.items():
        prefix = "predicted" if name == "classify" else name
        columns[f"{prefix}_east"] = one.positions[:, 0, 0].copy()
        columns[f"{prefix}_north"] = one.positions[:, 0, 1].copy()
        columns["error_m" if name == "classify" else f"{name}_error_m"] = errors[name][:, 0].copy()
    places = found["classify"].positions
    columns |= {
        "score": cells.score[:, 0].copy(),
        "confidence": confidence,
        "abstain": abstain,
        "outside": outside,
        "class_ids": pa.array(list(cells.class_id), pa.list_(pa.int64())),
        "scores": pa.array(list(cells.score), pa.list_(pa.float32())),
        "answers_east": pa.array(list(places[:, :, 0]), pa.list_(pa.float64())),
        "answers_north": pa.array(list(places[:, :, 1]), pa.list_(pa.float64())),
    }
    within = errors["classify"] <= config.radius_m
    for top in config.top:
        columns[f"correct@{top}"] = within[:, :top].any(axis=1)
    note = {"score": config.score, "radius_m": config.radius_m, "zone": zone}
    write_table(path, pa.table(columns), note)
