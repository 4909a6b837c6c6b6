"""The work of one row: partition the city and extract features once, then train and evaluate each seed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cache.errors import PlacecacheError, StoreInUse
from cache.reader import FeatureReader
from cache.storage.folder_lock import locked
from cache.storage.paths import AnyPath, write_atomic
from cache.storage.shard_claims import claimed, claims_on
from cache.store import store_exists
from pipeline import console
from pipeline.experiments.paths import RowPaths
from pipeline.experiments.rows import Row
from pipeline.metrics_table import read_metrics
from pipeline.project.params import Params
from stages.errors import WeightsError

Metrics = dict[str, dict[str, Any]]


class HeldElsewhere(PlacecacheError):
    """Another process is doing the same work."""


@contextlib.contextmanager
def _naming_holder(work: str, path: AnyPath) -> Iterator[None]:
    """Turn the error that a path is claimed into one that says which process does the work."""
    try:
        yield
    except StoreInUse as fault:
        holder = next((str(claim) for claim in claims_on(path)), "a run that has just ended")
        raise HeldElsewhere(f"{work} by {holder}") from fault


def prepare(row: Row, device: str) -> None:
    """Partition the city and extract the features of a row, unless that is done already."""
    from pipeline.runners.extract import ExtractOptions, crop_splits, extract_split
    from pipeline.runners.imported import check_imported

    params, paths = row.params(0), row.paths(0)
    _partition(row, params, paths)
    for split in [*row.splits, *crop_splits(params)]:
        if params.extract.imported is not None:
            check_imported(params, paths, split)
            continue
        store = paths.features(split)
        try:
            with (
                _naming_holder(f"features of {split} are being extracted", store),
                console.progress(f"{row.name}: extract {split}") as progress,
            ):
                extract_split(params, paths, split, ExtractOptions(device), progress=progress)
        except WeightsError:
            # A complete store can be used without the weights that made it.
            if not store_exists(store) or FeatureReader.open(store).missing_rows:
                raise


def _partition(row: Row, params: Params, paths: RowPaths) -> None:
    from stages.partition.stage import PartitionInputs, run

    paths.experiments.mkdir(parents=True, exist_ok=True)
    with locked(paths.experiments):  # a second process waits, then finds the partition done
        if (paths.partition / "views.parquet").exists():
            return
        with console.progress(f"{row.name}: partition") as progress:
            inputs = PartitionInputs(
                params.partition, paths.index("database"), paths.partition, params.seeds.views
            )
            run(inputs, progress=progress)


def run_seed(row: Row, seed: int, device: str) -> tuple[Metrics, bool]:
    """Return the metrics of a row with a seed, and whether an earlier run computed them."""
    paths, identity = row.paths(seed), row.identity(seed)
    note = paths.run / "finished.json"
    if metrics := _read_note(note, identity):
        return metrics, True
    paths.run.parent.mkdir(parents=True, exist_ok=True)
    # The folder is claimed as if it were a store with one chunk.
    with _naming_holder(f"seed {seed} is being run", paths.run), claimed(paths.run, {0: range(1)}):
        if metrics := _read_note(note, identity):  # another process finished it a moment ago
            return metrics, True
        note.unlink(missing_ok=True)  # the files it vouches for are about to be replaced
        metrics = _train_and_evaluate(row.params(seed), paths, device)
        write_atomic(note, json.dumps({"identity": identity, "metrics": metrics}, indent=2).encode())
    return metrics, False


def _read_note(note: Path, identity: str) -> Metrics | None:
    """Return the metrics in a note, None if there is none or it was written with other settings."""
    if not note.exists():
        return None
    content = json.loads(note.read_text(encoding="utf-8"))
    metrics: Metrics = content["metrics"]
    return metrics if content["identity"] == identity else None


def _train_and_evaluate(params: Params, paths: RowPaths, device: str) -> Metrics:
    from pipeline.runners.evaluate import evaluate
    from pipeline.runners.train import train

    started = time.perf_counter()
    train(params, paths, groups=None, frozen=False, device=device, scheduler=None)
    trained = time.perf_counter()
    paths.plots.mkdir(parents=True, exist_ok=True)
    evaluate(params, paths, device=device)
    metrics: Metrics = read_metrics(paths)
    metrics["seconds"] = {"train": trained - started, "eval": time.perf_counter() - trained}
    return metrics
