"""The metrics of an evaluation, for metrics.json, details.json and people."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stages.eval.metrics.reach import Reach

Number = float | int | str | None


@dataclass(frozen=True)
class RecallBlock:
    """LR@N and its 95 % intervals in percent, by N, and the median error (NaN if there is none).

    Unreadable queries count as not localised, but not in the median error.
    """

    recall: dict[int, float]
    interval: dict[int, tuple[float, float]]
    median_error_m: float

    def numbers(self) -> dict[str, Number]:
        """Return the numbers as details.json has them."""
        numbers: dict[str, Number] = {f"LR@{top}": round(value, 3) for top, value in self.recall.items()}
        for top, (low, high) in self.interval.items():
            numbers[f"LR@{top} low"], numbers[f"LR@{top} high"] = round(low, 3), round(high, 3)
        return numbers | {"median_error_m": rounded(self.median_error_m, 2)}


@dataclass(frozen=True)
class LocaliserBlock:
    """The metrics of one localiser; `index_bytes` is the memory needed to answer.

    `look_ahead` is how many seconds and photos after a query the answers of walks are based on.
    `confidence` says how honest the confidences of other localisers than `classify` are.
    """

    lr: RecallBlock
    ms_per_query: float
    index_bytes: int
    look_ahead: tuple[float, int] | None = None
    confidence: dict[str, Number] = field(default_factory=dict)

    def numbers(self) -> dict[str, Number]:
        """Return the block of details.json: all but the time, which differs from run to run."""
        numbers = self.lr.numbers() | {"index_bytes": self.index_bytes} | self.confidence
        if self.look_ahead is None:
            return numbers
        seconds, photos = self.look_ahead
        return numbers | {"look_ahead_s": rounded(seconds, 1), "look_ahead_photos": photos}


@dataclass(frozen=True)
class SetBlock:
    """The metrics of one query set: counts, what was resampled, and the recall of each localiser."""

    queries: int
    unreadable: int
    resampled: str
    units: int
    localisers: dict[str, RecallBlock]

    def numbers(self) -> dict[str, Any]:
        """Return the part of the block `sets` of details.json."""
        counts = {name: value for name, value in vars(self).items() if name != "localisers"}
        return counts | {name: block.numbers() for name, block in self.localisers.items()}

    def headline(self, top: int) -> dict[str, float]:
        """Return what metrics.json holds: LR@top of `classify`, and of `hybrid` if it was compared."""
        names = {"classify": f"LR@{top}", "hybrid": f"hybrid LR@{top}"}
        blocks = {text: self.localisers.get(name) for name, text in names.items()}
        return {text: round(block.recall[top], 3) for text, block in blocks.items() if block}


@dataclass(frozen=True)
class EvalResult:
    """The metrics of an evaluation, by localiser and over all queries.

    `skipped` counts queries that `pipeline index` left out (None in old manifests): LR@N knows nothing of
    them. `resampled` and `units` say what intervals and tests resample. `scores`, `confidence` and
    `breakdown` are further blocks of details.json: LR@N of each score, reliability of the confidences, and
    LR@1 of `classify` by type of query. `sets` holds the metrics of each query set if there are several, and
    `sessions` those of each walk if walks are located.
    """

    blocks: dict[str, LocaliserBlock]
    queries: int
    unreadable: int
    skipped: int | None
    resampled: str
    units: int
    reach: Reach
    score: str
    radius_m: float
    weights: str
    scores: dict[str, Number]
    confidence: dict[str, Number]
    breakdown: dict[str, float]
    sets: dict[str, SetBlock] = field(default_factory=dict)
    sessions: dict[str, SetBlock] = field(default_factory=dict)

    @property
    def recall(self) -> dict[int, float]:
        """LR@N of `classify`."""
        return self.blocks["classify"].lr.recall

    @property
    def median_error_m(self) -> float:
        """Median error of `classify`."""
        return self.blocks["classify"].lr.median_error_m

    def metrics(self) -> dict[str, Any]:
        """Return the content of metrics.json: the few numbers by which runs are compared.

        First those of `classify`, then the recall of every other localiser and of each query set; numbers
        without a value are left out. Names are short, because `dvc exp show` makes a column of each.
        """
        first, second = ([*self.recall] * 2)[:2]
        numbers: dict[str, Any] = {f"LR@{top}": round(self.recall[top], 3) for top in (first, second)}
        numbers |= {
            "median_m": rounded(self.median_error_m, 2),
            "ECE": self.confidence.get("ECE"),
            "ceiling": round(self.reach.ceiling, 3),
        }
        others = {name: block.lr.recall[first] for name, block in self.blocks.items() if name != "classify"}
        numbers |= {name: {f"LR@{first}": round(recall, 3)} for name, recall in others.items()}
        for name, block in self.sets.items():
            numbers[f"set {name}" if name in numbers else name] = block.headline(first)
        return {name: value for name, value in numbers.items() if value is not None}

    def timings(self) -> dict[str, dict[str, Number]]:
        """Return the content of timings.json: the milliseconds per query of each localiser."""
        return {name: {"ms_per_query": rounded(block.ms_per_query, 3)} for name, block in self.blocks.items()}

    def details(self) -> dict[str, dict[str, Any]]:
        """Return the content of details.json, block by block."""
        content: dict[str, dict[str, Any]] = {name: block.numbers() for name, block in self.blocks.items()}
        content["classify"] |= {
            "queries": self.queries,
            "unreadable": self.unreadable,
            "skipped_at_index": self.skipped,
            "resampled": self.resampled,
            "units": self.units,
            "chance": round(self.reach.chance, 3),
            "near_cell": round(self.reach.near_cell, 3),
            "ceiling": round(self.reach.ceiling, 3),
            "radius_m": self.radius_m,
            "score": self.score,
            "weights": self.weights,
        }
        further = (("scores", self.scores), ("confidence", self.confidence), ("breakdown", self.breakdown))
        content |= {name: dict(block) for name, block in further if block}
        for name, blocks in (("sets", self.sets), ("sessions", self.sessions)):
            if blocks:
                content[name] = {part: block.numbers() for part, block in blocks.items()}
        return content

    def facts(self) -> list[tuple[str, object]]:
        """Return (name, value) pairs for a person to read."""
        facts = [(name.replace("_", " "), value) for name, value in self.details()["classify"].items()]
        if self.weights == "random":
            facts.append(("note", "the backbone is untrained (random weights): expect results near chance"))
        return facts


def rounded(value: float, digits: int) -> float | None:
    """Return the rounded value, or None if it is not finite: JSON has no NaN."""
    return round(float(value), digits) if np.isfinite(value) else None
