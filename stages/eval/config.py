"""The settings of evaluation; importing this module imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stages.errors import require
from stages.models.localiser.cell_fusion import FusionConfig

LocaliserName = Literal["classify", "retrieve", "hybrid"]


@dataclass(frozen=True)
class HybridConfig:
    """How `hybrid` ranks the photos inside the best cells.

    Attributes
    ----------
    cells : int
        Cells that classification proposes.
    neighbours : int
        Rings of cells around each of them to search as well.
    photos : int
        Best photos that count as evidence for an answer.
    temperature : float
        Divisor of the cosine between query and photo.
    prior_weight : float
        Weight of the log probability of a photo's cell; 0 ranks photos by similarity alone.
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
    """How queries are localised and measured.

    Attributes
    ----------
    localisers : tuple of {"classify", "retrieve", "hybrid"}
        Localisers to compare; `classify` is always among them.
    score : {"fused", "calibrated", "cosine", "softmax"}
        How `classify` ranks: by the evidence of neighbouring cells of all groups together, or single
        cells by calibrated probability, by cosine, or by probability within each group (4.20).
    radius_m : float
        An answer within this distance counts as correct.
    top : tuple of int
        The values of N in LR@N; the curve goes up to the largest.
    query_fraction : float
        Share of the queries to evaluate, drawn at random.
    bootstrap : int
        Resampled query sets behind each 95 % interval; 0 for no intervals.
    seed : int
        Of the share of queries and of the bootstrap.
    fusion : FusionConfig
        How evidence becomes answers.
    space : {"projected", "frozen"}
        Vectors that photos are compared by: embeddings or the backbone's features.
    sequence : {"none", "past", "whole"}
        Also locate the photos of each session together: from the photos before each one, or from all.
    speed_m_s : float
        How fast the photographer moves from photo to photo.
    crops : {1, 3, 5}
        Crops of each query, whose features are averaged: the centre, and others along its longer side.
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
    sequence: Literal["none", "past", "whole"]
    speed_m_s: float
    crops: Literal[1, 3, 5]

    @property
    def depth(self) -> int:
        """Answers per query: the largest N."""
        return max(self.top)

    def __post_init__(self) -> None:
        require("eval.radius_m", self.radius_m, self.radius_m > 0, "a positive distance such as 25")
        valid = len(self.top) > 0 and min(self.top) > 0
        require("eval.top", list(self.top), valid, "numbers from 1 such as [1, 5, 10, 20]")
        require(
            "eval.localisers", list(self.localisers), "classify" in self.localisers, "classify among them"
        )
        require(
            "eval.query_fraction", self.query_fraction, 0 < self.query_fraction <= 1, "above 0, at most 1"
        )
        require("eval.bootstrap", self.bootstrap, self.bootstrap >= 0, "0 or more")
        require("eval.speed_m_s", self.speed_m_s, self.speed_m_s > 0, "a positive speed such as 1.4")
