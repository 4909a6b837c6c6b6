"""Time and storage that a row takes: its features, its training and its evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from cache.errors import StoreError
from cache.reader import FeatureReader
from cache.storage.paths import StoragePath, total_size
from cache.store import store_exists
from cache.timings import total_timings
from pipeline.experiments.rows import Row


@dataclass(frozen=True)
class StoreCost:
    """Rows and bytes of a store, and seconds of extraction over all workers; None if they are not known."""

    rows: int
    bytes: int
    seconds: float | None


@dataclass(frozen=True)
class Costs:
    """Costs of a row: its features by split, which rows may share, and means over its seeds."""

    features: Mapping[str, StoreCost]
    localiser_bytes: float
    train_s: float
    eval_s: float

    @property
    def feature_bytes(self) -> int:
        """Bytes of all feature stores."""
        return sum(store.bytes for store in self.features.values())

    @property
    def extract_s(self) -> float | None:
        """Seconds of all extractions; None if one is not known."""
        known = [store.seconds for store in self.features.values() if store.seconds is not None]
        return sum(known) if known and len(known) == len(self.features) else None


def costs_of(row: Row, runs: Mapping[int, Mapping[str, Any]]) -> Costs | None:
    """Return the costs of a row with these runs; None without runs or with a damaged feature store."""
    if not runs:
        return None
    paths = row.paths(0)
    stores = {split: paths.features(split) for split in row.splits}
    try:
        features = {split: _store_cost(store) for split, store in stores.items() if store_exists(store)}
    except StoreError:
        return None
    return Costs(
        features,
        fmean(total_size(row.paths(seed).localiser) for seed in runs),
        fmean(metrics["seconds"]["train"] for metrics in runs.values()),
        fmean(metrics["seconds"]["eval"] for metrics in runs.values()),
    )


def _store_cost(store: StoragePath) -> StoreCost:
    rows, timings = FeatureReader.open(store).rows, total_timings(store)
    passed = timings["compute_s"] + timings["read_wait_s"] + timings["write_wait_s"]
    # The log may cover more images than the store has, if the store was deleted and made again.
    seconds = passed * rows / timings["images"] if timings["images"] else None
    return StoreCost(rows, total_size(store), seconds)
