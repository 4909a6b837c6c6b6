"""The work of one row: its city cut, its features extracted, each seed trained and evaluated, once."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cache.errors import PlacecacheError
from cache.reader import FeatureReader
from cache.storage.folder_lock import locked
from cache.storage.lifecycle import store_exists
from cache.storage.paths import StoragePath, write_atomic
from cache.storage.shard_claims import StoreInUse, claimed, claims_on
from pipeline import console
from pipeline.experiments.paths import RowPaths
from pipeline.experiments.rows import Row
from pipeline.project.params import Params
from pipeline.project.paths import SPLITS
from stages.errors import WeightsError

Metrics = dict[str, dict[str, Any]]


class HeldElsewhere(PlacecacheError):
    """Another process is at the same work."""


def splits_of(params: Params) -> tuple[str, ...]:
    """Return the splits whose features a row needs."""
    return SPLITS if params.train.augment_views else SPLITS[:2]


def prepare(row: Row, *, device: str) -> None:
    """Cut the city and extract features as a row needs them, as far as that is not done.

    Raises
    ------
    WeightsError
        If features are missing and the backbone's weights cannot be had.
    HeldElsewhere
        If another process is extracting them.
    """
    params, paths = row.params(0), row.paths(0)
    _cut(row, params, paths)
    for split in splits_of(params):
        try:
            _extract(row, params, paths, split, device)
        except WeightsError:
            # Features that came from elsewhere are as good without the weights that made them.
            store = paths.features(split)
            if not store_exists(store) or FeatureReader.open(store).missing_rows:
                raise
        except StoreInUse as fault:
            raise HeldElsewhere(
                f"features of {split} are being extracted by {_holder(paths.features(split))}"
            ) from fault


def _cut(row: Row, params: Params, paths: RowPaths) -> None:
    from stages.partition.stage import run as cut_city

    paths.experiments.mkdir(parents=True, exist_ok=True)
    with locked(paths.experiments):  # of two processes the second finds the city cut
        if (paths.partition / "views.parquet").exists():
            return
        with console.progress(f"{row.name}: partition") as progress:
            cut_city(
                params.partition,
                manifest=paths.index("database"),
                output=paths.partition,
                seed=params.seeds.views,
                progress=progress,
            )


def _extract(row: Row, params: Params, paths: RowPaths, split: str, device: str) -> None:
    from pipeline.runners.extract import extract_split

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


def run_seed(row: Row, seed: int, *, device: str) -> tuple[Metrics, bool]:
    """Return the metrics of a row with a seed, and whether they were there already.

    Raises
    ------
    HeldElsewhere
        If another process is running this seed.
    """
    paths, identity = row.paths(seed), row.identity(seed)
    note = paths.run / "finished.json"
    if known := _finished(note, identity):
        return known, True
    with _alone(paths.run, seed):
        if known := _finished(note, identity):  # by a process that gave it back just now
            return known, True
        note.unlink(missing_ok=True)  # what follows replaces the files that it vouches for
        metrics = _train_and_evaluate(row.params(seed), paths, device)
        write_atomic(note, json.dumps({"identity": identity, "metrics": metrics}, indent=2).encode())
    return metrics, False


def _train_and_evaluate(params: Params, paths: RowPaths, device: str) -> Metrics:
    from pipeline.runners.evaluate import evaluate
    from pipeline.runners.train import train

    begun = time.perf_counter()
    train(params, paths, groups=None, frozen=False, device=device, scheduler=None)
    trained = time.perf_counter()
    paths.plots.mkdir(parents=True, exist_ok=True)
    evaluate(params, paths, device=device)
    metrics: Metrics = json.loads(paths.metrics.read_text(encoding="utf-8"))
    metrics["seconds"] = {"train": trained - begun, "eval": time.perf_counter() - trained}
    return metrics


def _finished(note: Path, identity: str) -> Metrics | None:
    if not note.exists():
        return None
    known = json.loads(note.read_text(encoding="utf-8"))
    metrics: Metrics = known["metrics"]
    return metrics if known["identity"] == identity else None


@contextlib.contextmanager
def _alone(run: Path, seed: int) -> Iterator[None]:
    """Hold the folder of a row's seed, as a store with one chunk would be held, while the block runs."""
    run.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(claimed(run, {0: range(1)}))
        except StoreInUse as fault:
            raise HeldElsewhere(f"seed {seed} is being run by {_holder(run)}") from fault
        yield


def _holder(claimed_place: StoragePath) -> str:
    return next((str(claim) for claim in claims_on(claimed_place)), "a run that has just ended")
