"""What the loss does otherwise from class to class, after how many images each has: long-tail learning.

Pure torch. Three published ways, each a row of numbers over a group's classes:
weights (Cui et al., CVPR 2019), logits shifted by the prior (Menon et al.,
ICLR 2021) and margins of their own (LDAM; Cao et al., NeurIPS 2019). All go by
the images of the classes table, whatever is drawn. Where each image is equally
likely to be drawn, the first and second make up for unequal numbers, as
published. Where each class is (the default), what is drawn is level already,
and both lean towards the tail beyond that.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from stages.errors import ConfigError


class Classwise(NamedTuple):
    """What differs between the K classes of a group; None where nothing does.

    Attributes
    ----------
    weights : Tensor or None
        Factor of the loss of each class's samples, shape (K,).
    offsets : Tensor or None
        Added to each class's logit while training, shape (K,).
    margins : Tensor or None
        Each class's margin, in place of the head's, shape (K,).
    """

    weights: Tensor | None = None
    offsets: Tensor | None = None
    margins: Tensor | None = None

    def of(self, rows: Tensor) -> Classwise:
        """Return the same for some of the classes, int64, shape (C,)."""
        return Classwise(*(None if values is None else values[rows] for values in self))


ALIKE = Classwise()
"""No difference between classes."""


def balanced_weights(images: Tensor, beta: float) -> Tensor:
    """Return weights in proportion to (1 - beta) / (1 - beta ** n), of mean 1, shape (K,).

    Cui et al., equation 8: 1 / n for beta near 1, all alike for beta 0.
    """
    # 1 - beta ** n through expm1: for beta near 1 the difference itself would lose its digits.
    weights = -1 / torch.expm1(images * math.log(beta))
    return weights / weights.mean()


def log_priors(images: Tensor, tau: float) -> Tensor:
    """Return tau times the log of each class's share of the images; Menon et al., equation 10; shape (K,)."""
    return tau * (images / images.sum()).log()


def falling_margins(images: Tensor, margin: float, power: float, limit: float) -> Tensor:
    """Return margins in proportion to n ** -power, of mean `margin`, shape (K,).

    Cao et al., equation 13, derive the power 0.25. Their constant is tuned;
    the mean here is the head's own margin, so that heads stay comparable.

    Raises
    ------
    ConfigError
        If the greatest does not stay below `limit`.
    """
    falling = images**-power
    margins = margin * falling / falling.mean()
    if margins.max() >= limit:
        raise ConfigError(
            f"train.margin_power is {power}: the smallest class would have a margin of {margins.max():.2f}, "
            f"expected less than {limit:.3g}; lower it, or train.margin"
        )
    return margins
