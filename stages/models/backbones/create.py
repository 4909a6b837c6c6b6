"""Models: empty, with seeded random weights for tests, or with the weights that a setting names."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from stages.errors import ConfigError
from stages.models.backbones.checkpoint import load_weights
from stages.models.backbones.function import call_function
from stages.models.backbones.registry import BACKBONES, spec_of
from stages.models.backbones.spec import PYTHON
from stages.models.backbones.timm_model import load_timm_model, timm_model
from stages.models.backbones.weights import PRETRAINED, RANDOM, find_weights

_RANDOM_SEED = 0


def empty_model(name: str, image_size: int) -> nn.Module:
    """Return a model to fill from a checkpoint."""
    if name not in BACKBONES:
        return timm_model(name, image_size)
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
            if parameter.ndim <= 1:  # scales, including layer scales, are 1 and biases 0
                nn.init.constant_(parameter, float(not key.endswith("bias")))
            elif name in BACKBONES:  # timm's initialisation suits any depth, but is skipped for these
                nn.init.normal_(parameter, std=0.02 if BACKBONES[name].kind == "vit" else 0.1)
    return model


def load_model(name: str, weights: str, image_size: int) -> nn.Module:
    """Return a backbone's model, not optimised, with the weights that a setting names.

    Raises
    ------
    WeightsError
        If they are not available or do not fit.
    """
    if name.startswith(PYTHON):
        require_own_weights(name, weights)
        return call_function(name)
    if weights == RANDOM:
        return random_model(name, image_size)
    path = find_weights(name, spec_of(name).source, weights)
    if name not in BACKBONES:
        return load_timm_model(name, image_size, path)
    with torch.device("meta"):  # takes no memory before the checkpoint's tensors are assigned
        model = empty_model(name, image_size)
    load_weights(model, path, name=name)
    return model


def require_own_weights(name: str, weights: str) -> None:
    """Raise ConfigError if a setting names weights for a function, which loads its own."""
    if weights != PRETRAINED:
        raise ConfigError(
            f"extract.weights is {weights!r}, but the function of {name} loads its weights itself: "
            "set extract.weights to pretrained and name other weights in the function"
        )
