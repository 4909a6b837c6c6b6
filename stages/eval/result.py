"""The numbers of an evaluation, for metrics.json and for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Number = float | int | str | None


@dataclass(frozen=True)
class Block:
    """How one localiser did.

    Attributes
    ----------
    recall : dict of int to float
        LR@N in percent by N; an unreadable query counts as not localised.
    interval : dict of int to (float, float)
        95 % bootstrap intervals of these.
    median_error_m : float
        Of the first answers to readable queries; NaN if there are none.
    ms_per_query : float
        From feature to positions.
    index_bytes : int
        What must be at hand to answer.
    """

    recall: dict[int, float]
    interval: dict[int, tuple[float, float]]
    median_error_m: float
    ms_per_query: float
    index_bytes: int

    def numbers(self) -> dict[str, Number]:
        """Return the block of metrics.json."""
        numbers: dict[str, Number] = {f"LR@{top}": round(value, 3) for top, value in self.recall.items()}
        for top, (low, high) in self.interval.items():
            numbers[f"LR@{top} low"], numbers[f"LR@{top} high"] = round(low, 3), round(high, 3)
        return numbers | {
            "median_error_m": tidy(self.median_error_m, 2),
            "ms_per_query": tidy(self.ms_per_query, 3),
            "index_bytes": self.index_bytes,
        }


@dataclass(frozen=True)
class EvalResult:
    """How well queries are localised.

    Attributes
    ----------
    blocks : dict of str to Block
        By localiser: classify, retrieve, hybrid.
    queries, unreadable : int
        Queries looked at, and those among them without a feature.
    chance, ceiling : float
        Percent: LR@1 of answering with a class at random; queries within the
        radius of some class's centre.
    score, radius_m : str, float
        As configured.
    weights : str
        Setting the backbone's weights came from; "random" means an untrained backbone.
    scores, confidence, breakdown : dict
        Further blocks of metrics.json: LR@N of each score, how good the
        confidences are, and LR@1 of `classify` by kind of query.
    """

    blocks: dict[str, Block]
    queries: int
    unreadable: int
    chance: float
    ceiling: float
    score: str
    radius_m: float
    weights: str
    scores: dict[str, Number]
    confidence: dict[str, Number]
    breakdown: dict[str, float]

    @property
    def recall(self) -> dict[int, float]:
        """LR@N of `classify`."""
        return self.blocks["classify"].recall

    @property
    def median_error_m(self) -> float:
        """Median error of `classify`."""
        return self.blocks["classify"].median_error_m

    def metrics(self) -> dict[str, dict[str, Any]]:
        """Return the content of metrics.json: numbers and short strings, block by block."""
        content: dict[str, dict[str, Any]] = {name: block.numbers() for name, block in self.blocks.items()}
        content["classify"] |= {
            "queries": self.queries,
            "unreadable": self.unreadable,
            "chance": round(self.chance, 3),
            "ceiling": round(self.ceiling, 3),
            "radius_m": self.radius_m,
            "score": self.score,
            "weights": self.weights,
        }
        further = (("scores", self.scores), ("confidence", self.confidence), ("breakdown", self.breakdown))
        content |= {name: dict(block) for name, block in further if block}
        return content

    def facts(self) -> list[tuple[str, object]]:
        """Return (name, value) pairs for a person to read."""
        facts = [(name.replace("_", " "), value) for name, value in self.metrics()["classify"].items()]
        if self.weights == "random":
            facts.append(("note", "the backbone is untrained (random weights): expect about chance"))
        return facts


def tidy(value: float, digits: int) -> float | None:
    """Return the value rounded, None where there is none: JSON knows no NaN."""
    return round(float(value), digits) if np.isfinite(value) else None


def median(errors: npt.NDArray[np.float64]) -> float:
    """Return the median error, NaN without queries."""
    return float(np.median(errors)) if len(errors) else float("nan")
