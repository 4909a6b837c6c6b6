import hashlib

import numpy as np
import pytest
import torch
from torch.nn import functional

from stages.models.aggregators.config import AggregatorSettings
from stages.models.backbones.backbone import load_backbone
from stages.models.backbones.pooling import pooled
from stages.models.backbones.split import tokens_at_split
from stages.models.trainable_blocks import TrainableBlocksSettings

PREFIX = torch.zeros(2, 0, 24)


def patches(seed, channels=24):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator)
    return torch.randn(2, 49, channels, generator=generator) @ mixing / channels**0.5


def bilinear(tokens):
    return pooled(["bilinear"], tokens[:, :0], tokens)["bilinear"]


def pixels(size):
    values = np.random.default_rng(0).integers(0, 255, (2, size, size, 3), dtype=np.uint8)
    return torch.from_numpy(values)


@pytest.mark.parametrize("positions", [2, 49])  # few and many are computed in another order
def test_the_signs_of_bilinear_never_change(positions):
    shown = patches(0)[:, :positions]
    tokens = shown.double().numpy()
    bits = np.unpackbits(np.frombuffer(hashlib.shake_256(b"bilinear 24").digest(24 * 4096 // 8), np.uint8))
    signs = (2.0 * bits - 1).reshape(24, 4096) / 24**0.5
    sketch = ((tokens @ signs[:, :2048]) * (tokens @ signs[:, 2048:])).mean(axis=1)
    roots = np.sign(sketch) * np.sqrt(np.abs(sketch))
    expected = roots / np.linalg.norm(roots, axis=1, keepdims=True)
    np.testing.assert_allclose(bilinear(shown).numpy(), expected, rtol=1e-4, atol=1e-6)


def test_bilinear_estimates_cosines_of_second_moments():
    one, other = patches(1), patches(2)
    moments = [(tokens.transpose(1, 2) @ tokens).flatten(1) for tokens in (one, other)]
    sketches = [feature * feature.abs() for feature in (bilinear(one), bilinear(other))]
    expected, estimated = functional.cosine_similarity(*moments), functional.cosine_similarity(*sketches)
    torch.testing.assert_close(estimated, expected, rtol=0.15, atol=0)
    torch.testing.assert_close(bilinear(one).norm(dim=1), torch.ones(2))


def test_bilinear_ignores_the_order_of_patches():
    tokens = patches(3)
    torch.testing.assert_close(bilinear(tokens.flip(1)), bilinear(tokens), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "size", "weights"),
    [
        ("efficientnet_lite0", 64, "pretrained"),
        ("dinov2_vits14", 28, "random"),
        ("timm:swin_tiny_patch4_window7_224", 56, "random"),
    ],
)
def test_bilinear_comes_from_the_pass_of_the_others(name, size, weights):
    outputs = ("avg", "bilinear", "avg@-2", "bilinear@-2")
    backbone = load_backbone(name, weights=weights, image_size=size, outputs=outputs)
    assert backbone.outputs["bilinear"] == 2048
    assert backbone.outputs["bilinear@-2"] == 2048
    features = backbone(pixels(size))
    plain = load_backbone(name, weights=weights, image_size=size, outputs=("avg",))(pixels(size))
    torch.testing.assert_close(features["avg"], plain["avg"], rtol=1e-4, atol=1e-4)
    images = (pixels(size).permute(0, 3, 1, 2) - backbone.pixel_mean) / backbone.pixel_std
    with torch.inference_mode():
        tokens = tokens_at_split(backbone.model, backbone.kind, images, backbone.spec.blocks)
        if backbone.kind == "vit":
            tokens = backbone.model.norm(tokens)
    expected = bilinear(tokens[:, backbone.spec.prefix :])
    torch.testing.assert_close(features["bilinear"], expected, rtol=1e-3, atol=1e-4)
    assert (features["bilinear"][0] - features["bilinear"][1]).norm() > 1e-2


def test_trained_blocks_give_what_they_can_of_the_frozen_outputs():
    recipe = type("Recipe", (), {"backbone": "efficientnet_lite0", "image_size": 64})()
    recipe.outputs = {"avg@-2": 192, "bilinear@-2": 2048, "gem": 1280, "bilinear": 2048, "cut7": 1280}
    settings = AggregatorSettings("pooled", 4, 8, 4)
    frozen = ("avg@-2", "bilinear@-2", "gem", "bilinear")
    assert TrainableBlocksSettings.of(recipe, frozen, settings).outputs == ("gem",)
    assert TrainableBlocksSettings.of(recipe, ("bilinear@-2", "bilinear"), settings).outputs == ("avg",)
