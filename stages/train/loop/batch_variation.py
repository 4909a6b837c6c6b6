"""Long-tail switches of a step: differences between classes, mixed views and noise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stages.models.heads.class_balance import Classwise, balanced_weights, falling_margins, log_priors
from stages.models.heads.heads import HeadSettings
from stages.train.config import TrainConfig
from stages.train.data.samplers import BatchIndices


def classwise_of(
    config: TrainConfig, images: npt.NDArray[np.int64], head: HeadSettings, device: torch.device
) -> Classwise:
    """Return weights, offsets and margins as configured for a group with these images in each class (K,).

    Raises
    ------
    ConfigError
        If the smallest class would get a margin out of range.
    """
    if not len(images):
        return Classwise()
    counts = torch.from_numpy(images).double()
    classwise = Classwise(
        weights=balanced_weights(counts, config.class_weight_beta) if config.class_weight_beta else None,
        offsets=log_priors(counts, config.logit_adjustment) if config.logit_adjustment else None,
        margins=(
            falling_margins(counts, head.margin, config.margin_power, head.margin_limit)
            if config.margin_power
            else None
        ),
    )
    return Classwise(*(None if values is None else values.float().to(device) for values in classwise))


def vary(features: Tensor, batch: BatchIndices, noise: float, gain: Tensor) -> None:
    """Mix views with their originals and add noise, in place.

    `features` (B + A, F) float32 are those of the images, then of the views. `noise` is a standard deviation
    on standardised features, and `gain` (F,) what standardising multiplies each component by.
    """
    if batch.mixture is not None and len(batch.mixture):
        views = features[len(batch.images) :]
        originals = features[torch.from_numpy(batch.originals).to(features.device)]
        views.lerp_(originals, torch.from_numpy(batch.mixture).to(features.device).unsqueeze(1))
    if noise:
        random = torch.Generator(features.device).manual_seed(batch.noise_seed)
        drawn = torch.randn(features.shape, generator=random, device=features.device)
        features.addcdiv_(drawn, gain, value=noise)
