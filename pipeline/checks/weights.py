"""Compare the features of one drawn picture with timm's own pipeline and the authors' weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import cosine_similarity

from cache.errors import PlacecacheError
from pipeline.checks.finding import Finding
from stages.extract.config import ExtractConfig
from stages.models.backbones.backbone import Backbone, load_backbone
from stages.models.backbones.outputs import stored_outputs
from stages.models.backbones.reference import reference_features
from stages.models.backbones.registry import spec_of
from stages.models.backbones.spec import PYTHON
from stages.models.backbones.weights import RANDOM, find_weights, original_file

_SAME, _SIMILAR = 0.9999, 0.99


def compare_features(config: ExtractConfig) -> Iterator[Finding]:
    """Say how far our features of a drawn picture are from those of other programs, per output."""
    if config.backbone.startswith(PYTHON) or config.weights == RANDOM or config.imported is not None:
        yield Finding("features", "ok", f"{config.backbone} with {config.weights} weights has no reference")
        return
    picture = drawn_picture()
    try:
        ours = _features(_load(config, config.weights), picture)
        path = find_weights(config.backbone, spec_of(config.backbone).source, config.weights)
        theirs = reference_features(config.backbone, path, config.image_size, picture, tuple(ours))
        yield _difference("timm", f"{path.name} in timm", ours, theirs)
        original = original_file(spec_of(config.backbone).source)
        if original is not None and original != path:
            again = _features(_load(config, str(original)), picture)
            yield _difference("authors", f"{original.name} of the authors", ours, again)
    except PlacecacheError as fault:
        yield Finding.of("features", fault)


def drawn_picture() -> Image.Image:
    """Return a picture of a street, drawn without random numbers."""
    picture = Image.new("RGB", (640, 480), (150, 190, 230))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 330, 640, 480), fill=(90, 90, 95))
    for number in range(5):
        left, top = 130 * number - 20, 90 + 37 * (number * 3 % 4)
        draw.rectangle((left, top, left + 115, 335), fill=(200 - 25 * number, 90 + 30 * number, 80))
        for window in range(6):
            corner = (left + 15 + 50 * (window % 2), top + 20 + 60 * (window // 2))
            draw.rectangle((*corner, corner[0] + 30, corner[1] + 35), fill=(245, 240, 180))
    draw.polygon(((250, 480), (310, 330), (330, 330), (390, 480)), fill=(230, 230, 230))
    return picture


def _load(config: ExtractConfig, weights: str) -> Backbone:
    return load_backbone(
        config.backbone,
        weights=weights,
        image_size=config.image_size,
        outputs=stored_outputs(config.backbone, config.outputs, "last", "none"),
    )


def _features(backbone: Backbone, picture: Image.Image) -> dict[str, Tensor]:
    features: Any = backbone(torch.from_numpy(backbone.preprocess(picture))[None])
    return dict(features)


def _difference(subject: str, what: str, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> Finding:
    cosines = {name: float(cosine_similarity(ours[name], theirs[name])) for name in ours}
    largest = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
    numbers = ", ".join(f"{name} {cosine:.6f}" for name, cosine in cosines.items())
    text = f"cosine with {what}: {numbers}; largest difference {largest:.2g}"
    if min(cosines.values()) >= _SAME:
        return Finding(subject, "ok", text)
    if min(cosines.values()) >= _SIMILAR:
        remedy = "small: DINOv2's positions are resampled as its authors do, not as timm does"
        return Finding(subject, "note", text, remedy)
    return Finding(subject, "note", text, "compare extract.weights with the published file")
