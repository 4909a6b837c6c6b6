"""Long-tail learning: weights, logit offsets and margins of each class, computed from its number of images.

Three published methods: class-balanced weights (Cui et al., CVPR 2019), logits shifted by the prior (Menon et
al., ICLR 2021) and margins per class (LDAM; Cao et al., NeurIPS 2019). All use the image counts of the
classes table. With `train.sampling: image` weights and offsets make up for unequal counts, as published. With
`class`, the default, batches are balanced already and both favour the tail beyond that.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from stages.errors import ConfigError


class Classwise(NamedTuple):
    """Differences between the K classes of a group, each (K,) or None where there is none.

    Factors of the loss of a class's samples, terms added to its logit in training, and its margin in place of
    the head's.
    """

    weights: Tensor | None = None
    offsets: Tensor | None = None
    margins: Tensor | None = None

    def of(self, rows: Tensor) -> Classwise:
        """Return those of some classes, int64, shape (C,)."""
        return Classwise(*(None if values is None else values[rows] for values in self))


ALIKE = Classwise()
"""No difference between classes."""


def balanced_weights(images: Tensor, beta: float) -> Tensor:
    """Return weights in proportion to (1 - beta) / (1 - beta ** n), of mean 1, shape (K,).

    Cui et al., equation 8: 1 / n for beta near 1, all alike for beta 0.
    """
    # expm1, because 1 - beta ** n loses its digits for beta near 1.
    weights = -1 / torch.expm1(images * math.log(beta))
    return weights / weights.mean()


def log_priors(images: Tensor, tau: float) -> Tensor:
    """Return tau times the log of each class's share of the images; Menon et al., equation 10; shape (K,)."""
    return tau * (images / images.sum()).log()


def falling_margins(images: Tensor, margin: float, power: float, limit: float) -> Tensor:
    """Return margins in proportion to n ** -power, of mean `margin`, shape (K,).

    Cao et al., equation 13, derive the power 0.25 and tune the constant; here the mean is the head's margin,
    so that heads stay comparable.

    Raises
    ------
    ConfigError
        If the greatest is not below `limit`.
    """
    falling = images**-power
    margins = margin * falling / falling.mean()
    if margins.max() >= limit:
        raise ConfigError(
            f"train.margin_power is {power}: the smallest class would have a margin of {margins.max():.2f}, "
            f"expected less than {limit:.3g}; lower it, or train.margin"
        )
    return margins
