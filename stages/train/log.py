"""The training log as a CSV that `dvc plots` draws."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from pathlib import Path

from stages.parquet import replacing
from stages.train.loop import LogLine

COLUMNS = ("step", "loss", "samples_per_s", "validation_lr1")


def write_log(path: Path, lines: Iterable[LogLine]) -> None:
    """Write one row per line of the log; what was not measured stays empty."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for line in lines:
            speed = round(line.samples_per_s) or None
            writer.writerow((line.step, _shown(line.loss), speed, _shown(line.validation_lr1)))


def _shown(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.5g}"
