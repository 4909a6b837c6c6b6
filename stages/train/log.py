"""The training log: one small table per metric, as DVCLive writes them, for `dvc plots`."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from pathlib import Path

from stages.files import replacing
from stages.train.loop.trainer import LogLine

METRICS = ("loss", "samples_per_s", "validation_lr1")


def write_log(folder: Path, lines: Iterable[LogLine]) -> None:
    """Write ``<metric>.tsv`` with columns step and metric; lines without a value are left out."""
    written = list(lines)
    for metric in METRICS:
        rows = [(line.step, value) for line in written if _has_value(value := getattr(line, metric))]
        with (
            replacing(folder / f"{metric}.tsv") as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(("step", metric))
            writer.writerows((step, f"{value:.5g}") for step, value in rows)


def _has_value(value: float | None) -> bool:
    return value is not None and not math.isnan(value)
