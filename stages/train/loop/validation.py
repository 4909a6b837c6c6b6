"""How good the localiser is on the held-out images, and which weights to keep.

The weights of the latest validation are kept whose LR@1 is within one
standard error of the best. A hundred held-out photos cannot tell 50 % from
53 %: taking the best to the letter means taking a lucky early one, and on a
small city that costs more than it gains. With thousands of photos the
standard error vanishes and the rule is the usual one.
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
        Of the held-out images, shape (n, F); none for no validation.
    positions : ndarray of float64, shape (n, 2)
        Where they were taken.
    config : ValidationConfig
        Score, radius and patience.
    best_percent : float
        The best LR@1 so far; -1 before the first.
    kept_percent, kept_step : float, int
        LR@1 and step of the weights kept.
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
        """Return LR@1 in percent; the weights are kept if no earlier ones were clearly better.

        Parameters
        ----------
        localiser : Localiser
            As it is now.
        step : int
            How many steps it has seen.
        agree : callable, optional
            Makes processes that train together go by one result.
        """
        predictions = predict(localiser, self.features, top=1, score=self.config.score)
        errors = errors_m(predictions.positions, self.positions)
        percent = agree(recall_percent(errors, self.config.radius_m, (1,))[1])
        if self.keeps(percent, step):
            self._kept = {name: value.clone() for name, value in localiser.tensors().items()}
        return percent

    def keeps(self, percent: float, step: int) -> bool:
        """Return whether a result is within one standard error of the best, and take note of it."""
        self.best_percent = max(self.best_percent, percent)
        share = self.best_percent / 100
        if percent < self.best_percent - 100 * math.sqrt(share * (1 - share) / len(self)):
            self._worse += 1
            return False
        self.kept_percent, self.kept_step, self._worse = percent, step, 0
        return True

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return len(self) > 0 and self._worse >= self.config.patience

    def restore(self, localiser: Localiser) -> None:
        """Give the localiser the kept weights back."""
        for name, value in localiser.tensors().items():
            value.copy_(self._kept[name])

    def tensors(self) -> dict[str, Tensor]:
        """The weights kept, for a checkpoint."""
        return {f"kept.{name}": value for name, value in self._kept.items()}

    def numbers(self) -> dict[str, float]:
        """Whatever else a checkpoint needs of it."""
        return {
            "best_percent": self.best_percent,
            "kept_percent": self.kept_percent,
            "kept_step": self.kept_step,
            "worse": self._worse,
        }

    def resume(self, tensors: dict[str, Tensor], numbers: dict[str, float]) -> None:
        """Go on from what `tensors` and `numbers` gave."""
        self._kept = {name[len("kept.") :]: value for name, value in tensors.items() if name[:5] == "kept."}
        self.best_percent, self.kept_percent = numbers["best_percent"], numbers["kept_percent"]
        self.kept_step, self._worse = int(numbers["kept_step"]), int(numbers["worse"])
