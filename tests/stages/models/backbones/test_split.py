"""A backbone split in two: shapes, outputs of both parts, stored tokens and gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cache.reader import FeatureReader
from stages.errors import ConfigError
from stages.extract.shard import rounded
from stages.images.read import read_image
from stages.models.backbones.backbone import Backbone, load_backbone
from stages.models.backbones.card import describe_backbone
from stages.models.backbones.create import empty_model, random_model
from stages.models.backbones.optimise import fuse_activations, optimise
from stages.models.backbones.pooling import pooled
from stages.models.backbones.registry import BACKBONES
from stages.models.backbones.spec import split_blocks
from stages.models.backbones.split import (
    BlocksAfterSplit,
    SplitPoint,
    split_point,
    tokens_at_split,
)
from tests.support.tiny_photos import CONFIG, content, draw, listed, run

ROWS = 70
VIT = replace(CONFIG, backbone="dinov2_vits14", weights="random", image_size=28, outputs="default", cut=10)
CNN = replace(CONFIG, weights="random", image_size=64, outputs="default", cut=4)
CASES = [
    ("dinov2_vits14", 28, 1),
    ("dinov2_vits14", 28, 10),
    ("dinov2_vits14_reg", 56, 10),
    ("dinov2_vits14_reg", 28, 12),
    ("efficientnet_lite0", 64, 4),
    ("efficientnet_lite0", 64, 7),
]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    keys = [f"{number:03d}.jpg" for number in range(ROWS)]
    for number, key in enumerate(keys):
        draw(root / key, number)
    return listed(root / "list.parquet", root, keys)


def pixels(size, count=2):
    values = np.random.default_rng(0).integers(0, 255, (count, size, size, 3), dtype=np.uint8)
    return torch.from_numpy(values)


def images(size, count=2):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "name", ["dinov2_vits14", "dinov2_vitl14", "dinov2_vitb14_reg", "efficientnet_lite0"]
)
def test_registered_blocks_and_prefix_match_the_model(name):
    with torch.device("meta"):
        model = empty_model(name, 224)
    assert len(model.blocks) == BACKBONES[name].blocks
    assert getattr(model, "num_prefix_tokens", 0) == BACKBONES[name].prefix


def test_shapes_at_a_split_point():
    vit = split_point("dinov2_vitb14_reg", 224, 10)
    assert vit == SplitPoint(blocks=10, prefix=5, side=16, channels=768)
    assert (vit.name, vit.tokens, vit.length) == ("cut10", 261, 261 * 768)
    assert split_point("efficientnet_lite0", 224, 4) == SplitPoint(blocks=4, prefix=0, side=14, channels=80)
    assert split_point("efficientnet_lite0", 64, 7) == SplitPoint(blocks=7, prefix=0, side=2, channels=320)
    names = ("cut10", "cut0", "cls", "cut", "cut010", "acut1", "cut1\n")
    assert [split_blocks(name) for name in names] == [10, 0, None, None, None, None, None]


def test_impossible_splits_are_rejected():
    for name, blocks, expected in (
        ("dinov2_vits14", 0, "extract.cut is 0: dinov2_vits14 has 12 blocks, expected none, or 1 to 12"),
        ("dinov2_vits14", 13, "extract.cut is 13"),
        ("efficientnet_lite0", 8, "has 7 stages"),
    ):
        size = 224
        with pytest.raises(ConfigError, match=expected):
            split_point(name, size, blocks)
        with pytest.raises(ConfigError, match=expected):
            describe_backbone(name, weights="random", image_size=size, outputs=("avg", f"cut{blocks}"))
        with pytest.raises(ConfigError, match=expected):
            replace(VIT, backbone=name, cut=blocks)
    with pytest.raises(ConfigError, match="image_size is 30"):
        split_point("dinov2_vits14", 30, 10)
    with pytest.raises(ConfigError, match="asked for cut4 and cut10: expected one cut at most"):
        describe_backbone("dinov2_vits14", weights="random", image_size=28, outputs=("cut4", "cut10"))
    with pytest.raises(ConfigError, match=r"extract\.outputs names cut10: set extract\.cut to 10"):
        replace(VIT, cut="none", outputs=("cls", "cut10"))


def test_stored_outputs_of_the_settings():
    assert VIT.stored == ("cls", "avg", "cut10")
    assert replace(VIT, cut="none").stored == ("cls", "avg")
    assert CNN.stored == ("bilinear", "cut4")
    assert replace(CNN, outputs=("gem",)).stored == ("gem", "cut4")


@pytest.mark.parametrize("optimised", [False, True])
@pytest.mark.parametrize(("name", "size", "blocks"), CASES)
def test_both_parts_together_equal_the_backbone(name, size, blocks, optimised):
    model, kind = random_model(name, size).eval(), BACKBONES[name].kind
    if optimised:
        model = optimise(model, kind=kind)
    cut = split_point(name, size, blocks)
    rest = BlocksAfterSplit(model, kind, cut)
    with torch.inference_mode():
        expected = model.forward_features(images(size))
        tokens = tokens_at_split(model, kind, images(size), blocks)
        before = tokens.clone()
        prefix, patches = rest(tokens)
    assert tokens.shape == (2, cut.tokens, cut.channels)
    torch.testing.assert_close(tokens, before, rtol=0, atol=0)  # no layer changes the tokens in place
    if kind == "cnn":
        expected = expected.flatten(2).transpose(1, 2)
    assert prefix.shape == (2, cut.prefix, BACKBONES[name].length)
    torch.testing.assert_close(torch.cat([prefix, patches], dim=1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "size", "blocks"), [CASES[1], CASES[3], CASES[4]])
def test_a_split_does_not_change_pooled_outputs(name, size, blocks):
    outputs = tuple(output for output in BACKBONES[name].choices if output != "bilinear")
    unsplit = load_backbone(name, weights="random", image_size=size, outputs=outputs)
    both = load_backbone(name, weights="random", image_size=size, outputs=(*outputs, f"cut{blocks}"))
    alone = load_backbone(name, weights="random", image_size=size, outputs=f"cut{blocks}")
    expected, found = unsplit(pixels(size)), both(pixels(size))
    cut = split_point(name, size, blocks)
    assert both.outputs == {**unsplit.outputs, f"cut{blocks}": cut.length}
    assert (both.card.split, unsplit.card.split) == (cut, None)
    for output in outputs:
        torch.testing.assert_close(found[output], expected[output], rtol=1e-5, atol=1e-5)
    assert found[cut.name].shape == (2, cut.length)
    assert found[cut.name].dtype == torch.float32
    torch.testing.assert_close(alone(pixels(size)), {cut.name: found[cut.name]})
    # The stored tokens give the same features again.
    with torch.inference_mode():
        tokens = found[cut.name].reshape(2, cut.tokens, cut.channels)
        again = pooled(outputs, *alone.after_split(tokens), registers=BACKBONES[name].registers)
    torch.testing.assert_close(again, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "size", "blocks"), [CASES[2], CASES[4]])
def test_gradients_reach_only_the_blocks_after_the_split(name, size, blocks):
    backbone = load_backbone(name, weights="random", image_size=size, outputs=("avg", f"cut{blocks}"))
    rest = backbone.after_split.requires_grad_(True)
    tokens = backbone(pixels(size))[f"cut{blocks}"].clone()  # computed in inference mode, without a graph
    cut = rest.split
    prefix, patches = rest(tokens.reshape(2, cut.tokens, cut.channels))
    (prefix.sum() + patches.square().sum()).backward()
    reached = {key for key, value in backbone.model.named_parameters() if value.grad is not None}
    after = ("norm.", "conv_head.", *(f"blocks.{k}." for k in range(blocks, BACKBONES[name].blocks)))
    assert reached == {key for key, _ in backbone.model.named_parameters() if key.startswith(after)}
    assert all(value.grad.abs().max() > 0 for value in rest.blocks[0].parameters() if value.ndim > 1)


def test_fused_activations_have_gradients():
    model = optimise(random_model("dinov2_vits14", 28).eval(), kind="vit").requires_grad_(False)
    cut = split_point("dinov2_vits14", 28, 11)
    tokens = tokens_at_split(model, "vit", images(28), 11)
    plain = BlocksAfterSplit(model, "vit", cut)(tokens)
    fuse_activations(model)
    rest = BlocksAfterSplit(model, "vit", cut).requires_grad_(True)
    found = rest(tokens)
    torch.testing.assert_close(found, plain)
    found[1].sum().backward()
    assert rest.blocks[0].mlp.first.weight.grad.abs().max() > 0
    assert rest.blocks[0].mlp.second.weight.grad.abs().max() > 0


@pytest.mark.parametrize("config", [VIT, CNN], ids=["vit", "cnn"])
def test_the_store_has_the_input_of_the_next_block(manifest, tmp_path, config):
    run(manifest, tmp_path / "database.zarr", config)
    reader = FeatureReader.open(tmp_path / "database.zarr")
    backbone = load_backbone(
        config.backbone, weights="random", image_size=config.image_size, outputs=config.stored
    )
    assert reader.outputs == backbone.outputs
    entered = []
    backbone.model.blocks[config.cut].register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    row = 65
    shown = backbone.preprocess(read_image(manifest.image_path(f"{row:03d}.jpg")))
    backbone(torch.from_numpy(shown[None]))
    (tensor,) = entered
    if config is CNN:
        assert tensor.shape == (1, 80, 4, 4)
        tensor = tensor.permute(0, 2, 3, 1)
    stored = reader.read(row, row + 1, [f"cut{config.cut}"])
    assert stored.dtype == np.float16
    np.testing.assert_allclose(stored[0], tensor.flatten().numpy(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("config", [VIT, CNN], ids=["vit", "cnn"])
def test_a_resumed_run_equals_an_uninterrupted_one(manifest, tmp_path, monkeypatch, config):
    passed, forward = [], Backbone.forward

    def interrupted(self, shown):
        if sum(passed) >= 64:
            raise KeyboardInterrupt
        passed.append(len(shown))
        return forward(self, shown)

    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(manifest, tmp_path / "a" / "database.zarr", config)
    assert FeatureReader.open(tmp_path / "a/database.zarr").missing_rows == ROWS - 64
    assert run(manifest, tmp_path / "a" / "database.zarr", config).computed == ROWS - 64
    run(manifest, tmp_path / "b" / "database.zarr", config)
    assert content(tmp_path / "a/database.zarr") == content(tmp_path / "b/database.zarr")


def test_tokens_beyond_float16_make_a_bad_row(manifest, tmp_path, monkeypatch):
    forward, passed = Backbone.forward, []

    def overflowing(self, shown):
        found = {name: values.clone() for name, values in forward(self, shown).items()}
        if not passed:
            found["cut4"][3, 17] = 70_000.0
        passed.append(len(shown))
        return found

    monkeypatch.setattr(Backbone, "forward", overflowing)
    (bad,) = run(manifest, tmp_path / "a" / "database.zarr", replace(CNN, outputs=("avg",))).bad
    assert (bad.row, bad.key) == (3, "003.jpg")
    assert bad.reason == "feature cut4 is not finite as float16"
    reader = FeatureReader.open(tmp_path / "a" / "database.zarr")
    assert np.isnan(reader.read(3, 4, ["avg"])).all()
    assert np.isfinite(reader.read(4, ROWS, ["avg", "cut4"])).all()
    passed.clear()
    assert run(manifest, tmp_path / "b" / "database.zarr", replace(CNN, dtype="float32")).bad == ()


def test_features_are_rounded_like_numpy():
    rng = np.random.default_rng(0)
    ends = [
        0.0,
        -0.0,
        65504.0,
        65519.9,
        65520.0,
        -65520.0,
        1e-7,
        3e-8,
        5.97e-8,
        2049.0,
        2051.0,
        np.nan,
        np.inf,
    ]
    values = np.concatenate([rng.normal(0, 10.0 ** rng.integers(-9, 5, 5000)), ends]).astype(np.float32)
    found = rounded(torch.from_numpy(values[:, None]), "float16")
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    assert np.array_equal(found.values.numpy()[:, 0], expected, equal_nan=True)
    assert np.array_equal(found.finite.numpy(), np.isfinite(expected))
    assert not found.finite[-9]
    assert found.finite[-10]
