"""What a row of experiments costs: time and storage of its features, its training and its evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.reader import FeatureReader
from cache.storage.lifecycle import store_exists
from cache.storage.paths import StoragePath, total_size
from cache.timings import total_timings


@dataclass(frozen=True)
class StoreCost:
    """Cost of one split's features.

    Attributes
    ----------
    rows : int
        Images, or views.
    bytes : int
        Of the whole store.
    seconds : float or None
        Of the backbone and of what it waited for, summed over workers, for all rows at the pace of those
        that were timed; None where nothing was, as of features that came from elsewhere.
    """

    rows: int
    bytes: int
    seconds: float | None

    @classmethod
    def of(cls, store: StoragePath) -> StoreCost:
        """Return the cost of a store, from its files and the log of its chunks."""
        rows, spent = FeatureReader.open(store).rows, total_timings(store)
        passed = spent["compute_s"] + spent["read_wait_s"] + spent["write_wait_s"]
        # The log also knows what was computed before a store was made anew.
        seconds = passed * rows / spent["images"] if spent["images"] else None
        return cls(rows, total_size(store), seconds)


@dataclass(frozen=True)
class Costs:
    """Cost of a row.

    Attributes
    ----------
    features : mapping
        Split -> cost of its features, which rows may share.
    localiser_bytes, train_s, eval_s : float
        Of one training seed, means over seeds.
    """

    features: Mapping[str, StoreCost]
    localiser_bytes: float
    train_s: float
    eval_s: float

    @classmethod
    def of(
        cls,
        features: Mapping[str, StoragePath],
        localisers: Sequence[Path],
        runs: Sequence[Mapping[str, Any]],
    ) -> Costs:
        """Return the cost of a row from its stores, and its seeds' localisers and metrics."""
        return cls(
            {split: StoreCost.of(store) for split, store in features.items() if store_exists(store)},
            _mean([total_size(localiser) for localiser in localisers]),
            _mean([metrics["seconds"]["train"] for metrics in runs]),
            _mean([metrics["seconds"]["eval"] for metrics in runs]),
        )

    @property
    def feature_bytes(self) -> int:
        """Bytes of all splits' features."""
        return sum(store.bytes for store in self.features.values())

    @property
    def extract_s(self) -> float | None:
        """Seconds of all splits' extraction; None if a split's are not known."""
        known = [store.seconds for store in self.features.values() if store.seconds is not None]
        return sum(known) if known and len(known) == len(self.features) else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
