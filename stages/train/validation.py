"""How good the localiser is on the held-out images, and the best weights so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from stages.localiser import Localiser
from stages.recall import errors_m, recall_percent
from stages.train.config import ValidationConfig


@dataclass
class Validation:
    """LR@1 on held-out images, and the weights that had the best.

    Attributes
    ----------
    features : Tensor
        Of the held-out images, shape (n, F); none for no validation.
    positions : ndarray of float64, shape (n, 2)
        Where they were taken.
    config : ValidationConfig
        Score, radius and patience.
    best_percent, best_step : float, int
        The best LR@1 and when it was reached; -1 before the first.
    images : int
        How many there are, or were before `emptied`.
    """

    features: Tensor
    positions: npt.NDArray[np.float64]
    config: ValidationConfig
    best_percent: float = -1.0
    best_step: int = -1
    _since_best: int = 0
    _best: dict[str, Tensor] = field(default_factory=dict)

    images: int = field(init=False)

    def __post_init__(self) -> None:
        self.images = len(self.features)

    def __len__(self) -> int:
        return len(self.features)

    def emptied(self) -> Validation:
        """Return what was measured, without features and weights."""
        empty = Validation(self.features[:0], self.positions[:0], self.config)
        empty.best_percent, empty.best_step, empty.images = self.best_percent, self.best_step, self.images
        return empty

    def measure(self, localiser: Localiser, step: int) -> float:
        """LR@1 in percent; the weights are kept if it is the best so far."""
        predictions = localiser.predict(self.features, top=1, score=self.config.score)
        errors = errors_m(predictions.positions, self.positions)
        percent = recall_percent(errors, self.config.radius_m, (1,))[1]
        if percent > self.best_percent:
            self.best_percent, self.best_step, self._since_best = percent, step, 0
            self._best = {name: value.clone() for name, value in localiser.tensors().items()}
        else:
            self._since_best += 1
        return percent

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return len(self) > 0 and self._since_best >= self.config.patience

    def restore(self, localiser: Localiser) -> None:
        """Give the localiser the best weights back."""
        for name, value in localiser.tensors().items():
            if name in self._best:
                value.copy_(self._best[name])
