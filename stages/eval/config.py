"""The settings of evaluation; importing this imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stages.errors import require
from stages.models.localiser.cell_fusion import FusionConfig

LocaliserName = Literal["classify", "retrieve", "hybrid"]


@dataclass(frozen=True)
class HybridConfig:
    """How photos inside the best cells are ranked.

    Attributes
    ----------
    cells : int
        Cells that classification proposes.
    neighbours : int
        Rings of cells around each of them that are searched as well.
    photos : int
        The best photos whose positions are evidence for an answer.
    temperature : float
        What the cosine between query and photo is divided by.
    prior_weight : float
        How much the log probability of a photo's cell counts; 0: photos are ranked by likeness alone.
    """

    cells: int
    neighbours: int
    photos: int
    temperature: float
    prior_weight: float

    def __post_init__(self) -> None:
        require("eval.hybrid.cells", self.cells, self.cells > 0, "a positive number such as 10")
        require("eval.hybrid.neighbours", self.neighbours, self.neighbours >= 0, "0 or more rings")
        require("eval.hybrid.photos", self.photos, self.photos > 0, "a positive number such as 64")
        require("eval.hybrid.temperature", self.temperature, self.temperature > 0, "a positive number")
        require("eval.hybrid.prior_weight", self.prior_weight, self.prior_weight >= 0, "0 or more")


@dataclass(frozen=True)
class EvalConfig:
    """How predictions are made and judged.

    Attributes
    ----------
    localisers : tuple of {"classify", "retrieve", "hybrid"}
        What is compared; `classify` is always among them.
    score : {"fused", "calibrated", "cosine", "softmax"}
        How `classify` ranks: by evidence taken together over neighbouring
        cells of all groups, or cell by cell by calibrated probabilities,
        cosines, or probabilities within each group (4.20).
    radius_m : float
        Distance within which a prediction is right.
    top : tuple of int
        The values of N in LR@N; the curve goes up to the largest.
    query_fraction : float
        Share of the queries to look at, drawn at random.
    bootstrap : int
        Redrawn query sets behind each 95 % interval; 0: no intervals.
    seed : int
        Of the share of queries and of the bootstrap.
    fusion : FusionConfig
        How evidence becomes answers.
    space : {"projected", "frozen"}
        What photos are compared by: embeddings or the backbone's features.
    hybrid : HybridConfig
        How classification and retrieval go together.
    """

    localisers: tuple[LocaliserName, ...]
    score: Literal["fused", "calibrated", "cosine", "softmax"]
    radius_m: float
    top: tuple[int, ...]
    query_fraction: float
    bootstrap: int
    seed: int
    fusion: FusionConfig
    space: Literal["projected", "frozen"]
    hybrid: HybridConfig

    def __post_init__(self) -> None:
        require("eval.radius_m", self.radius_m, self.radius_m > 0, "a positive distance such as 25")
        fine = len(self.top) > 0 and min(self.top) > 0
        require("eval.top", list(self.top), fine, "numbers from 1 such as [1, 5, 10, 20]")
        require(
            "eval.localisers", list(self.localisers), "classify" in self.localisers, "classify among them"
        )
        require(
            "eval.query_fraction", self.query_fraction, 0 < self.query_fraction <= 1, "above 0, at most 1"
        )
        require("eval.bootstrap", self.bootstrap, self.bootstrap >= 0, "0 or more")
