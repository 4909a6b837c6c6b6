"""Validation: LR@1 on the held-out images, and the choice of the weights to keep.

The latest weights are kept whose LR@1 is within one standard error of the best. A hundred held-out photos
cannot tell 50 % from 53 %, so the very best weights are often lucky early ones, which costs a small city more
than it gains. With thousands of photos the standard error vanishes and the rule becomes the usual one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import predict
from stages.models.localiser.recall import errors_m, recall_percent
from stages.train.config import ValidationConfig


@dataclass
class Validation:
    """LR@1 on held-out images, and the weights to keep.

    Attributes
    ----------
    features : Tensor
        Of the held-out images, shape (n, F); n is 0 without validation.
    positions : ndarray of float64, shape (n, 2)
        Where they were taken, UTM metres.
    config : ValidationConfig
        Score, radius and patience.
    best_percent, kept_percent : float
        LR@1 of the best weights so far and of those kept; -1 before the first.
    kept_step : int
        Step of the weights kept.
    """

    features: Tensor
    positions: npt.NDArray[np.float64]
    config: ValidationConfig
    best_percent: float = -1.0
    kept_percent: float = -1.0
    kept_step: int = -1
    _worse: int = 0
    _kept: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.features)

    def measure(self, localiser: Localiser, step: int, agree: Callable[[float], float] = float) -> float:
        """Return LR@1 in percent; keep a copy of the weights unless earlier ones were clearly better.

        `agree` returns the first process's result in all processes.
        """
        predictions = predict(localiser, self.features, top=1, score=self.config.score)
        errors = errors_m(predictions.positions, self.positions)
        percent = agree(recall_percent(errors, self.config.radius_m, (1,))[1])
        if self.keeps(percent, step):
            self._kept = {name: value.clone() for name, value in localiser.tensors().items()}
        return percent

    def keeps(self, percent: float, step: int) -> bool:
        """Record a result and return whether it is within one standard error of the best."""
        self.best_percent = max(self.best_percent, percent)
        share = self.best_percent / 100
        if percent < self.best_percent - 100 * math.sqrt(share * (1 - share) / len(self)):
            self._worse += 1
            return False
        self.kept_percent, self.kept_step, self._worse = percent, step, 0
        return True

    @property
    def exhausted(self) -> bool:
        """Whether to stop, because too many validations in a row were clearly worse than the best."""
        return len(self) > 0 and self._worse >= self.config.patience

    def restore(self, localiser: Localiser) -> None:
        """Set the localiser to the kept weights."""
        for name, value in localiser.tensors().items():
            value.copy_(self._kept[name])

    def tensors(self) -> dict[str, Tensor]:
        """Return the kept weights for a checkpoint."""
        return {f"kept.{name}": value for name, value in self._kept.items()}

    def numbers(self) -> dict[str, float]:
        """Return the numbers for a checkpoint."""
        return {
            "best_percent": self.best_percent,
            "kept_percent": self.kept_percent,
            "kept_step": self.kept_step,
            "worse": self._worse,
        }

    def resume(self, tensors: dict[str, Tensor], numbers: dict[str, float]) -> None:
        """Set tensors and numbers from a checkpoint."""
        self._kept = {name[len("kept.") :]: value for name, value in tensors.items() if name[:5] == "kept."}
        self.best_percent, self.kept_percent = numbers["best_percent"], numbers["kept_percent"]
        self.kept_step, self._worse = int(numbers["kept_step"]), int(numbers["worse"])
