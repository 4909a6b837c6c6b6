"""The settings of evaluation; importing this imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stages.errors import ConfigError


@dataclass(frozen=True)
class EvalConfig:
    """How predictions are made and judged.

    Attributes
    ----------
    score : {"softmax", "cosine"}
        What is compared across groups: probabilities within each group (4.20), or cosines.
    radius_m : float
        Distance within which a prediction is right.
    top : tuple of int
        The values of N in LR@N; the curve goes up to the largest.
    """

    score: Literal["softmax", "cosine"]
    radius_m: float
    top: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.radius_m <= 0:
            raise ConfigError(f"eval.radius_m is {self.radius_m}: expected a positive distance such as 25")
        if not self.top or min(self.top) < 1:
            raise ConfigError(f"eval.top is {list(self.top)}: expected numbers from 1 such as [1, 5, 10, 20]")
