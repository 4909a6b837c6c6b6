"""timm models: empty, with seeded random weights for tests, or with the weights that a setting names."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from stages.models.backbones.checkpoint import load_weights
from stages.models.backbones.registry import BACKBONES
from stages.models.backbones.weights import RANDOM, find_weights

_RANDOM_SEED = 0


def empty_model(name: str, image_size: int) -> nn.Module:
    """Return a model to fill from a checkpoint."""
    spec = BACKBONES[name]
    # The weights are replaced afterwards: skip timm's slow initialisation.
    vit: dict[str, Any] = {"img_size": image_size, "weight_init": "skip"} if spec.kind == "vit" else {}
    model: nn.Module = timm.create_model(spec.model, pretrained=False, num_classes=0, **vit)
    return model


def random_model(name: str, image_size: int) -> nn.Module:
    """Return a model with seeded weights whose features depend on the image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        model = empty_model(name, image_size)
        for key, parameter in model.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02 if BACKBONES[name].kind == "vit" else 0.1)
            else:  # scales, including layer scales, are 1 and biases 0
                nn.init.constant_(parameter, float(not key.endswith("bias")))
    return model


def load_model(name: str, weights: str, image_size: int) -> nn.Module:
    """Return a backbone's timm model, not optimised, with the weights that a setting names.

    Raises
    ------
    WeightsError
        If they are not available or do not fit.
    """
    if weights == RANDOM:
        return random_model(name, image_size)
    with torch.device("meta"):  # takes no memory before the checkpoint's tensors are assigned
        model = empty_model(name, image_size)
    load_weights(model, find_weights(name, BACKBONES[name].source, weights), name=name)
    return model
