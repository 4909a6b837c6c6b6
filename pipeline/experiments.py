"""Experiments: rows of settings, several training seeds each, side by side on one project's data."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from cache.files import write_atomic
from cache.reader import FeatureReader
from cache.whole import there
from pipeline import console
from pipeline.experiment_rows import Row
from pipeline.paths import SPLITS
from stages.errors import WeightsError

Metrics = dict[str, dict[str, Any]]


def prepare(row: Row, *, device: str) -> None:
    """Cut the city and extract features as a row needs them, as far as that is not done.

    Raises
    ------
    WeightsError
        If features are missing and the backbone's weights cannot be had.
    """
    from pipeline.extraction import extract_split
    from stages.partition import run as cut_city

    params, paths = row.params(0), row.paths(0)
    if not (paths.partition / "views.parquet").exists():
        with console.progress(f"{row.name}: partition") as progress:
            cut_city(
                params.partition,
                manifest=paths.index("database"),
                output=paths.partition,
                seed=params.seeds.views,
                progress=progress,
            )
    for split in SPLITS if params.train.augment_views else SPLITS[:2]:
        store = paths.features(split)
        try:
            with console.progress(f"{row.name}: extract {split}") as progress:
                extract_split(
                    params,
                    paths,
                    split,
                    shards=range(params.extract.shards),
                    device=device,
                    replace=False,
                    keep=False,
                    repair=False,
                    scheduler=None,
                    progress=progress,
                )
        except WeightsError:
            # Features that came from elsewhere are as good without the weights that made them.
            if not there(store) or FeatureReader.open(store).missing_rows:
                raise


def run_seed(row: Row, seed: int, *, device: str) -> tuple[Metrics, bool]:
    """Return the metrics of a row with a seed, and whether they were there already."""
    paths, identity = row.paths(seed), row.identity(seed)
    note = paths.run / "finished.json"
    if note.exists() and (known := json.loads(note.read_text(encoding="utf-8")))["identity"] == identity:
        return known["metrics"], True
    from pipeline.evaluation import evaluate
    from pipeline.training import train

    params = row.params(seed)
    begun = time.perf_counter()
    train(params, paths, groups=None, frozen=False, device=device, scheduler=None)
    trained = time.perf_counter()
    paths.plots.mkdir(parents=True, exist_ok=True)
    evaluate(params, paths, device=device)
    metrics: Metrics = json.loads(paths.metrics.read_text(encoding="utf-8"))
    metrics["seconds"] = {"train": trained - begun, "eval": time.perf_counter() - trained}
    write_atomic(note, json.dumps({"identity": identity, "metrics": metrics}, indent=2).encode())
    return metrics, False


def run_rows(
    rows: Sequence[Row], seeds: Sequence[int], *, device: str, say: Callable[[str], None]
) -> dict[str, dict[int, Metrics] | str]:
    """Return each row's metrics by seed, or why it cannot be run here."""
    found: dict[str, dict[int, Metrics] | str] = {}
    for row in rows:
        try:
            prepare(row, device=device)
        except WeightsError as fault:
            found[row.name] = f"not run: {fault}"
            say(f"{row.name}: {found[row.name]}")
            continue
        runs = found[row.name] = {}
        for seed in seeds:
            runs[seed], known = run_seed(row, seed, device=device)
            seconds = runs[seed]["seconds"]
            spent = "done before" if known else f"{seconds['train'] + seconds['eval']:.1f} s"
            say(f"{row.name}, seed {seed}: {spent}")
    return found
