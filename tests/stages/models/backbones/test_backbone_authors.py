"""The backbone equals the code of DINOv2's authors, at the trained image size and at a smaller one."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stages.models.backbones.backbone import load_backbone
from stages.models.backbones.checkpoint import resample_position_embedding

TRAINED_GRID = 37  # 518 px in patches of 14
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def cubic(distance, a):
    """The cubic convolution kernel."""
    x = np.abs(distance)
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))


def plain_matrix(old, new):
    """(new, old) weights of a bicubic resize by (new + 0.1) / old with repeated borders."""
    step = old / (new + 0.1)
    matrix = np.zeros((new, old))
    for i in range(new):
        place = (i + 0.5) * step - 0.5
        for tap in range(math.floor(place) - 1, math.floor(place) + 3):
            matrix[i, min(max(tap, 0), old - 1)] += cubic(place - tap, -0.75)
    return matrix


def antialiased_matrix(old, new):
    """(new, old) weights of a bicubic resize to `new` whose kernel is as wide as the step."""
    step = old / new
    width = max(step, 1.0)
    centres = (np.arange(new)[:, None] + 0.5) * step
    taps = np.arange(old)[None] + 0.5
    low, high = np.floor(centres - 2 * width + 0.5), np.floor(centres + 2 * width + 0.5)
    matrix = cubic((taps - centres) / width, -0.5) * (taps > low) * (taps < high)
    return matrix / matrix.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("std", [0.02, 1.0])
@pytest.mark.parametrize("grid", [7, 16, 24, 45])
@pytest.mark.parametrize("registers", [False, True])
def test_positions_are_resampled_as_the_authors_do(registers, grid, std):
    embedding = torch.randn(1, 1 + TRAINED_GRID**2, 6, generator=torch.Generator().manual_seed(0)) * std
    matrix = (antialiased_matrix if registers else plain_matrix)(TRAINED_GRID, grid)
    plane = embedding[0, 1:].double().numpy().reshape(TRAINED_GRID, TRAINED_GRID, 6)
    expected = np.einsum("ik,jl,klf->ijf", matrix, matrix, plane).reshape(grid * grid, 6)
    ours = resample_position_embedding(embedding, grid, registers=registers)
    np.testing.assert_array_equal(ours[0, 0], embedding[0, 0])
    np.testing.assert_allclose(ours[0, 1:], expected, atol=2e-5 * std)


def authors_state(std, *, registers, length=384, depth=12):
    """A state in the authors' layout, every tensor of a size that matters."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape, scale=0.04, around=0.0):
        return torch.randn(*shape, generator=generator) * scale + around

    state = {
        "cls_token": normal(1, 1, length, scale=0.5),
        "pos_embed": normal(1, 1 + TRAINED_GRID**2, length, scale=std),
        "mask_token": torch.zeros(1, length),
        "patch_embed.proj.weight": normal(length, 3, 14, 14),
        "patch_embed.proj.bias": normal(length),
        "norm.weight": normal(length, around=1.0, scale=0.2),
        "norm.bias": normal(length),
    }
    if registers:
        state["register_tokens"] = normal(1, 4, length, scale=0.5)
    for block in range(depth):
        for name, rows, columns in (
            ("attn.qkv", 3 * length, length),
            ("attn.proj", length, length),
            ("mlp.fc1", 4 * length, length),
            ("mlp.fc2", length, 4 * length),
        ):
            state[f"blocks.{block}.{name}.weight"] = normal(rows, columns)
            state[f"blocks.{block}.{name}.bias"] = normal(rows)
        for part in ("1", "2"):
            state[f"blocks.{block}.norm{part}.weight"] = normal(length, around=1.0, scale=0.2)
            state[f"blocks.{block}.norm{part}.bias"] = normal(length)
            state[f"blocks.{block}.ls{part}.gamma"] = normal(length, around=0.5, scale=0.2)
    return state


def authors_features(state, images, *, heads=6):
    """The published model step by step: class token, registers, patches; returns class and patch tokens."""
    length = state["cls_token"].shape[-1]

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    def attention(x, name):
        count = x.shape[1]
        qkv = linear(x, f"{name}.qkv").reshape(len(x), count, 3, heads, length // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / math.sqrt(length // heads)).softmax(-1)
        return linear((weights @ v).transpose(1, 2).reshape(len(x), count, length), f"{name}.proj")

    patches = F.conv2d(
        images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=14
    ).flatten(2)
    grid = math.isqrt(patches.shape[-1])
    positions = state["pos_embed"]
    registers = state.get("register_tokens")
    if grid != TRAINED_GRID:
        matrix = (plain_matrix if registers is None else antialiased_matrix)(TRAINED_GRID, grid)
        weights = torch.from_numpy(matrix).float()
        plane = positions[0, 1:].reshape(TRAINED_GRID, TRAINED_GRID, length)
        plane = torch.einsum("ik,jl,klf->ijf", weights, weights, plane).reshape(1, grid * grid, length)
        positions = torch.cat([positions[:, :1], plane], dim=1)
    x = (
        torch.cat([state["cls_token"].expand(len(images), -1, -1), patches.transpose(1, 2)], dim=1)
        + positions
    )
    if registers is not None:
        x = torch.cat([x[:, :1], registers.expand(len(images), -1, -1), x[:, 1:]], dim=1)
    for i in range(12):
        block = f"blocks.{i}"
        x = x + state[f"{block}.ls1.gamma"] * attention(norm(x, f"{block}.norm1"), f"{block}.attn")
        hidden = F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x = x + state[f"{block}.ls2.gamma"] * linear(hidden, f"{block}.mlp.fc2")
    x = norm(x, "norm")
    return x[:, 0], x[:, 1 + (0 if registers is None else registers.shape[1]) :]


def photos(size, count=2):
    random = np.random.default_rng(3)
    coarse = torch.from_numpy(random.uniform(0, 255, (count, 3, 9, 9))).float()
    smooth = F.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 255)
    return smooth.permute(0, 2, 3, 1).round().to(torch.uint8).contiguous()


def normalised(pixels):
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


def relative(ours, theirs):
    return float(((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).max())


@pytest.fixture
def loaded(tmp_path):
    """Load a state in the authors' layout, as a user's file is."""

    def load(state, size, outputs=("cls", "avg")):
        torch.save(state, tmp_path / "authors.pth")
        name = "dinov2_vits14_reg" if "register_tokens" in state else "dinov2_vits14"
        weights = str(tmp_path / "authors.pth")
        return load_backbone(name, weights=weights, image_size=size, outputs=outputs)

    return load


@pytest.mark.parametrize(
    ("registers", "size", "std"),
    [(False, 224, 1.0), (True, 224, 1.0), (False, 518, 1.0), (True, 518, 1.0)],
)
def test_features_equal_the_published_model(loaded, registers, size, std):
    state = authors_state(std, registers=registers)
    pixels = photos(size, count=1)
    pooled = loaded(dict(state), size)(pixels)
    with torch.inference_mode():
        token, patches = authors_features(state, normalised(pixels))
    assert relative(pooled["cls"], token) < 1e-4
    assert relative(pooled["avg"], patches.mean(dim=1)) < 1e-4


def test_the_two_ways_to_resample_are_told_apart():
    """The comparisons above would not pass with the other model's way."""
    positions = authors_state(1.0, registers=False, depth=0)["pos_embed"]
    plain, antialiased = (
        resample_position_embedding(positions, 16, registers=flag) for flag in (False, True)
    )
    assert relative(plain[0, 1:], antialiased[0, 1:]) > 0.1


@pytest.mark.parametrize("size", [224, 518])
def test_features_equal_the_authors_package(loaded, size):
    """Against their own code, where it is installed; it has no models with registers."""
    logging.getLogger("dinov2").setLevel(logging.ERROR)
    vision_transformer = pytest.importorskip("dinov2.models.vision_transformer")
    model = vision_transformer.vit_small(
        patch_size=14, img_size=518, init_values=1.0, ffn_layer="mlp", block_chunks=0
    ).eval()
    state = authors_state(1.0, registers=False)
    model.load_state_dict(state)
    pixels = photos(size, count=1)
    with torch.inference_mode():
        theirs = model.forward_features(normalised(pixels))
    pooled = loaded(dict(state), size)(pixels)
    assert relative(pooled["cls"], theirs["x_norm_clstoken"]) < 1e-4
    assert relative(pooled["avg"], theirs["x_norm_patchtokens"].mean(dim=1)) < 1e-4


def test_half_precision_storage_costs_next_to_nothing(loaded):
    pooled = loaded(authors_state(0.1, registers=False), 98)(photos(98, count=4))
    for features in pooled.values():
        kept = features.numpy().astype(np.float16).astype(np.float32)
        assert torch.cosine_similarity(features, torch.from_numpy(kept)).min() > 1 - 1e-3
