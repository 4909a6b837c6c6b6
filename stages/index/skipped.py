"""What was indexed and what was not: counts by reason, the first few named."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stages.index.batch import EntryBatch, SkipReason

NAMED = 3


@dataclass
class Tally:
    """Counts that grow while batches pass.

    Attributes
    ----------
    rows
        Images that are indexed.
    counts, examples
        Entries that are not, by reason, and the first few keys of each.
    low, high
        Corners of the box around all indexed positions, in metres.
    """

    rows: int = 0
    counts: dict[SkipReason, int] = field(default_factory=dict)
    examples: dict[SkipReason, list[str]] = field(default_factory=dict)
    low: tuple[float, float] = (np.inf, np.inf)
    high: tuple[float, float] = (-np.inf, -np.inf)

    def blame(self, fault: SkipReason, count: int, keys: list[str]) -> None:
        """Count entries that are not indexed."""
        self.counts[fault] = self.counts.get(fault, 0) + count
        named = self.examples.setdefault(fault, [])
        named += keys[: NAMED - len(named)]

    def blame_faulty(self, found: EntryBatch) -> None:
        """Count the faulty rows of a batch."""
        for code in np.unique(found.faults[found.faults > 0]):
            rows = np.flatnonzero(found.faults == code)
            keys = [found.keys[int(row)].as_py() for row in rows[:NAMED]]
            self.blame(SkipReason(code), len(rows), keys)

    def accept(self, positions: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
        """Count the (n, 2) positions of images that are indexed."""
        self.rows += len(positions)
        if len(positions):
            low = np.minimum(self.low, positions.min(axis=0))
            high = np.maximum(self.high, positions.max(axis=0))
            self.low, self.high = (float(low[0]), float(low[1])), (float(high[0]), float(high[1]))

    def words(self) -> str:
        """Return "2 no position (a.jpg, b.jpg); 1 ..."."""
        parts = [
            f"{count:,} {fault.words} ({', '.join(self.examples[fault])})"
            for fault, count in self.counts.items()
        ]
        return "; ".join(parts) or "none"
