"""Features of a picture, read and computed by timm alone: what ours are compared with."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from timm.data.transforms_factory import create_transform
from torch import Tensor

from stages.models.backbones.pooling import pooled
from stages.models.backbones.registry import spec_of
from stages.models.backbones.spec import BILINEAR, TIMM
from stages.models.backbones.split import as_tokens, tokens_at_split
from stages.models.backbones.timm_model import load_timm_model


@torch.inference_mode()
def reference_features(
    name: str, path: Path, image_size: int, picture: Image.Image, outputs: tuple[str, ...]
) -> dict[str, Tensor]:
    """Return pooled features (1, F) of a picture, read and computed by timm alone.

    A named backbone is compared with its timm model at the sizes that it is resized to here.
    """
    spec = spec_of(name)
    model = load_timm_model(name if name.startswith(TIMM) else TIMM + spec.model, image_size, path)
    preprocess = spec.preprocess(image_size)
    transform = create_transform(
        input_size=(3, image_size, image_size),
        crop_pct=image_size / preprocess.resize if spec.crop_pct is None else spec.crop_pct,
        interpolation=spec.interpolation,
        crop_mode=spec.crop_mode,
        mean=spec.mean,
        std=spec.std,
    )
    images = transform(picture)[None]
    last = as_tokens(model.forward_features(images), spec.kind)  # type: ignore[operator]
    features: dict[str, Tensor] = {}
    for output in outputs:
        tokens = last
        if output == BILINEAR and spec.kind != "vit":
            tokens = tokens_at_split(model, spec.kind, images, spec.blocks)
        prefix, patches = tokens[:, : spec.prefix], tokens[:, spec.prefix :]
        features |= pooled([output], prefix, patches, spec.registers)
    return features
