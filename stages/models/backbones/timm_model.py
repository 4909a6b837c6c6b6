"""Any timm model as a backbone: its shape, preprocessing and blocks, found out without its weights."""

from __future__ import annotations

import difflib
import math
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from stages.errors import ConfigError, WeightsError
from stages.models.backbones.block_order import block_order, in_order
from stages.models.backbones.checkpoint import load_weights, read_checkpoint
from stages.models.backbones.spec import TIMM, BackboneSpec, Kind
from stages.models.backbones.weights import HUB_FILE, PACKAGES, WeightsSource

_UNSUITABLE = (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError, AttributeError)


@lru_cache(maxsize=256)
@torch.no_grad()
def timm_spec(name: str) -> BackboneSpec:
    """Return what timm states of a model, and what a pass without values shows.

    Raises
    ------
    ConfigError
        If timm has no such model or tag, or its features are neither tokens nor maps.
    """
    _require_known(name)
    size = int(_published(name).input_size[-1])
    model, features = model_and_features(name, size)
    published = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    kind, length, tokens = _layout(name, model, features)
    prefix, registers = _prefix(model, tokens) if kind == "vit" else (0, 0)
    order = block_order(model, kind) if in_order(model, kind, _images(model, size)) else None
    return BackboneSpec(
        name.removeprefix(TIMM),
        kind,
        length,
        _patch_side(model) if kind == "vit" else 1,
        0 if order is None else len(order.blocks),
        prefix,
        tuple(published["mean"]),
        tuple(published["std"]),
        _source(name),
        registers=registers,
        crop_pct=published["crop_pct"],
        interpolation=published["interpolation"],
        crop_mode=published["crop_mode"],
        input_px=size,
    )


def timm_model(name: str, image_size: int, **options: Any) -> nn.Module:
    """Return a timm model for images of that side; convolutional ones are not told the size."""
    options = {"num_classes": 0, "pretrained": False, **options}
    try:
        model: nn.Module = timm.create_model(name.removeprefix(TIMM), img_size=image_size, **options)
    except TypeError:
        model = timm.create_model(name.removeprefix(TIMM), **options)
    return model.eval()


def load_timm_model(name: str, image_size: int, path: Path) -> nn.Module:
    """Return a timm model with the weights of a file, converted by timm and loaded completely.

    Raises
    ------
    WeightsError
        If the file cannot be read or does not fit.
    """
    if timm_spec(name).source.package:  # the packages have other names of tensors
        model = timm_model(name, image_size)
        load_weights(model, path, name=name)
        return model
    state = read_checkpoint(path)
    config = _published(name)
    # timm loads incompletely, without an error, when it drops a classifier: so keep the file's.
    rows = state.get(f"{config.classifier}.weight")
    sizes = dict.fromkeys((0 if rows is None else len(rows), config.num_classes))
    fault: Exception = RuntimeError()
    for classes in sizes:
        overlay = {"state_dict": dict(state), "num_classes": classes, "source": None, "label_offset": 0}
        try:
            model = timm_model(
                name, image_size, pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay
            )
        except (*_UNSUITABLE, KeyError) as error:
            fault = error
            continue
        model.pretrained_cfg = {}  # type: ignore[assignment]  # it holds the file's tensors
        return model
    reason = " ".join(str(fault).split())[:300]
    raise WeightsError(
        f"{path} does not fit {name}: {reason}. Set extract.weights to this backbone's own file"
    ) from fault


def require_timm_size(name: str, image_size: int) -> None:
    """Raise ConfigError unless a model accepts images of that side in pixels, tried without values."""
    try:
        model_and_features(name, image_size)
    except _UNSUITABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"extract.image_size is {image_size}, which {name} does not accept ({reason}): "
            f"it was trained on {timm_spec(name).input_px} pixels"
        ) from error


@lru_cache(maxsize=4)
@torch.no_grad()
def model_and_features(name: str, image_size: int) -> tuple[nn.Module, Tensor]:
    """Return a model and its features of one image, both without values where the model allows it."""
    for device in (torch.device("meta"), None):
        try:
            with device or nullcontext():
                model = timm_model(name, image_size)
                return model, model.forward_features(_images(model, image_size))  # type: ignore[operator]
        except _UNSUITABLE:
            if device is None:
                raise
    raise AssertionError


def _images(model: nn.Module, image_size: int) -> Tensor:
    return torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device)


def _published(name: str) -> Any:
    """Return what timm publishes of a model: addresses of weights, preprocessing."""
    return get_pretrained_cfg(name.removeprefix(TIMM))


def _require_known(name: str) -> None:
    model, _, tag = name.removeprefix(TIMM).partition(".")
    if not timm.is_model(model):
        similar = difflib.get_close_matches(model, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(similar)}?" if similar else "no name is similar;"
        raise ConfigError(
            f"extract.backbone is {name}, but timm {timm.__version__} has no model {model}: {hint} "
            "`pipeline backbones --search TEXT` lists models"
        )
    names = timm.list_pretrained(f"{model}.*") if tag else []
    if tag and f"{model}.{tag}" not in names:
        raise ConfigError(
            f"extract.backbone is {name}, but timm {timm.__version__} has no weights {tag} of {model}: "
            f"expected {', '.join(names) or f'{TIMM}{model}'}"
        )


def _layout(name: str, model: nn.Module, features: object) -> tuple[Kind, int, int]:
    """Return kind, length and number of tokens of a model's features (1, ...)."""
    length = getattr(model, "num_features", 0)
    if isinstance(features, Tensor) and features.ndim == 3:
        return "vit", features.shape[2], features.shape[1]
    if isinstance(features, Tensor) and features.ndim == 4:
        if getattr(model, "output_fmt", "NCHW") == "NHWC" or features.shape[1] != length == features.shape[3]:
            return "nhwc", features.shape[3], 0
        return "cnn", features.shape[1], 0
    shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
    raise ConfigError(
        f"extract.backbone is {name}, whose features are {shape}: expected tokens (B, T, C) or a map "
        "(B, C, H, W); wrap the model in a function and set extract.backbone to python:MODULE:FUNCTION"
    )


def _prefix(model: nn.Module, tokens: int) -> tuple[int, int]:
    """Return the tokens before the patches, and how many of them are registers."""
    prefix = getattr(model, "num_prefix_tokens", None)
    if prefix is None:  # patches of a square image fill a square, and one more is the class token
        prefix = int(math.isqrt(tokens) ** 2 != tokens and math.isqrt(tokens - 1) ** 2 == tokens - 1)
    registers = getattr(model, "reg_token", None)
    return int(prefix), 0 if registers is None else int(registers.shape[1])


def _patch_side(model: nn.Module) -> int:
    """Return the side of a patch in pixels; 1 if images of any size are accepted."""
    side = getattr(getattr(model, "patch_embed", None), "patch_size", 1)
    return int(max(side)) if isinstance(side, tuple | list) else int(side)


def _source(name: str) -> WeightsSource:
    config = _published(name)
    package = next((extra for extra in PACKAGES if config.architecture == f"tf_efficientnet_{extra}"), "")
    return WeightsSource(
        hub_repo=config.hf_hub_id or "",
        original=config.url.rsplit("/", 1)[-1] if config.url else "",
        package=package,
        hub_file=config.hf_hub_filename or HUB_FILE,
    )
