"""Export of a localiser as an ONNX file: contents, answers, precision, and what is rejected."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cache.recipe import Recipe
from pipeline.cli import main
from pipeline.locate.localiser import PhotoLocaliser
from pipeline.project.init import template
from stages.errors import InputError
from stages.images.read import read_image
from stages.models.aggregators.config import AggregatorSettings
from stages.models.backbones.card import describe_backbone
from stages.models.heads.heads import HeadSettings
from stages.models.localiser.calibration import Calibration
from stages.models.localiser.cell_fusion import FusionConfig
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import predict
from stages.models.onnx_export.convert import LARGEST_BYTES, convert, reason_of
from stages.models.onnx_export.graph import LocaliserGraph
from stages.models.onnx_export.stored_weights import store_weights
from stages.models.trainable_blocks import TrainableBlocks, TrainableBlocksSettings
from stages.partition.places import Places
from tests.support.training_city import partition

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

from stages.models.onnx_export.check import OnnxLocaliser, require_equal  # noqa: E402

EXAMPLE = Path(__file__).parents[3] / "examples" / "locate_onnx.py"
SIDE = 32
CORNER = np.array([551_000.0, 4_180_000.0])
FUSION = FusionConfig(candidates=8, edge_m=5.0, covered=0.7, temperature=0.1, likeness=8.0, abstain_cost=0.02)
MODELS = """
import torch
from torch import nn

class Eigen(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))
    def forward(self, images):
        maps = images.flatten(2) @ images.flatten(2).transpose(1, 2) * self.weight
        return torch.linalg.eigvalsh(maps)

def small():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 256, 8, stride=8), nn.ReLU(), nn.Conv2d(256, 48, 1)
    return nn.Sequential(*layers), {"image_size": 32, "crop_pct": 0.9}

def eigen():
    return Eigen(), {"image_size": 32}
"""


@pytest.fixture(scope="module", autouse=True)
def modules(tmp_path_factory):
    """A folder with backbones of our own, importable here and in projects."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "onnx_test_models.py").write_text(MODELS)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def new_localiser(backbone, *, weights="pretrained", outputs="default", inputs=None, tail=None, seed=0):
    card = describe_backbone(backbone, weights=weights, image_size=SIDE, outputs=outputs)
    recipe = Recipe(
        card.name,
        card.weights,
        card.weights_id,
        SIDE,
        card.preprocessing,
        card.outputs,
        "float16",
        "float32",
    )
    table, _ = partition(np.random.default_rng(seed).uniform(0, 120, (60, 2)) + CORNER)
    settings = None if tail is None else TrainableBlocksSettings.of(recipe, ("avg",), tail)
    torch.manual_seed(seed)
    heads = HeadSettings("aamc", 30.0, 0.2, False)
    trained = Localiser.new(replace(table, zone="10S"), recipe, inputs or tuple(card.outputs), 16, heads)
    if settings is not None:
        trained = Localiser.new(trained.classes, recipe, tuple(card.outputs), 16, heads, settings)
        trained.tail = TrainableBlocks.pretrained(settings, recipe, weights)
        if trained.tail.aggregator is not None:
            trained.tail.aggregator.begin(torch.randn(64, trained.tail.spec.length), 0)
    for head in trained.heads:
        torch.nn.init.normal_(head.prototypes)
    temperatures = tuple(np.linspace(0.08, 0.2, table.groups_per_side**2).tolist())
    plain = replace(Calibration.configured(table.groups_per_side**2, FUSION), temperatures=temperatures)
    trained.meta["calibration"] = plain.to_dict()
    trained.meta["fusion"] = {"settings": asdict(FUSION), "radius_m": 25.0}
    return trained


def call(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a localiser, and photos at the centres of some of its places as queries."""
    folder = tmp_path_factory.mktemp("project")
    trained = new_localiser("python:onnx_test_models:small")
    trained.save(folder / "models" / "localiser")
    lines = ["path,utm_east,utm_north,zone"]
    for number in range(11):
        draw(folder / f"{number}.jpg", number, (90, 60))
        east, north = trained.places.centres[number]
        lines.append(f"{number}.jpg,{east},{north},10S")
    (folder / "10.jpg").write_bytes(b"no photo")
    (folder / "queries.csv").write_text("\n".join(lines))
    params = template("params.yaml").read_text()
    for split in ("database", "queries"):
        params = params.replace(f"{split}: toycity", f"{split}: queries.csv")
    (folder / "params.yaml").write_text(params)
    assert call("--project", folder, "index") == 0
    return folder


def draw(path, seed, size):
    blocks = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC).save(path, quality=95)


@pytest.fixture(scope="module")
def exported(project):
    assert call("--project", project, "export", "model", project / "out", "--format", "onnx") == 0
    return project / "out"


@pytest.fixture(scope="module")
def answers(project):
    """Answers of the calibrated score in Python: latitude, longitude, cosine, probability."""

    def of(photo, top=5):
        located = PhotoLocaliser.load(project / "models" / "localiser")
        preprocess = located.backbone.preprocess
        pixels = preprocess(read_image(photo, decode_at_least=preprocess.decode_at_least))
        features = located.backbone(torch.from_numpy(pixels)[None])["avg"].numpy().astype(np.float16)
        best = predict(located.trained, features, top=top, score="calibrated")
        cosines = predict(located.trained, features, top=len(located.trained.places), score="cosine")
        cosine = dict(zip(cosines.class_id[0].tolist(), cosines.score[0].tolist(), strict=True))
        return [
            (place, cosine[place], probability)
            for place, probability in zip(best.class_id[0].tolist(), best.score[0].tolist(), strict=True)
        ]

    return of


def test_a_folder_holds_one_graph_and_its_description(exported, project):
    assert sorted(file.name for file in exported.iterdir()) == ["localiser.json", "localiser.onnx"]
    described = json.loads((exported / "localiser.json").read_text())
    trained = Localiser.load(project / "models" / "localiser")
    places = described["places"]
    assert {len(column) for column in places.values()} == {len(trained.places)}
    assert places["images"] == trained.places.images.tolist()
    assert 37 < places["latitude"][0] < 38
    assert described["backbone"]["weights_sha256"] == trained.recipe.weights_id
    assert described["graph"]["weights"] == "float32"
    assert described["checked"]["cosine difference"] < 1e-4
    assert described["queries"]["number"] == 11
    assert described["queries"]["unreadable"] == 1
    assert (
        json.loads((project / "models/localiser/meta.json").read_text())["digest"]
        == (described["localiser_sha256"])
    )


def test_the_measured_lr1_is_that_of_python(exported, project, answers):
    trained = Localiser.load(project / "models" / "localiser")
    centres = trained.places.centres
    right = sum(
        np.linalg.norm(centres[answers(project / f"{row}.jpg")[0][0]] - centres[row]) <= 25
        for row in range(10)
    )
    described = json.loads((exported / "localiser.json").read_text())
    assert described["queries"]["LR@1"] == round(100 * right / 11, 1)


def test_the_example_answers_as_python_without_torch(exported, project, answers, tmp_path):
    draw(tmp_path / "large.jpg", 3, (1500, 1100))
    draw(tmp_path / "tall.png", 4, (40, 70))
    for module in ("torch", "pipeline", "stages", "cache"):
        (tmp_path / f"{module}.py").write_text("raise ImportError('not allowed')")
    photos = [str(tmp_path / name) for name in ("large.jpg", "tall.png")]
    shown = subprocess.run(
        [sys.executable, EXAMPLE, exported, *photos],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    lines = [line.split() for line in shown.splitlines()]
    places = json.loads((exported / "localiser.json").read_text())["places"]
    expected = [(photo, *answer) for photo in photos for answer in answers(Path(photo))]
    assert len(lines) == len(expected) == 10
    for line, (photo, place, cosine, probability) in zip(lines, expected, strict=True):
        assert line[0] == photo
        assert float(line[1]) == pytest.approx(places["latitude"][place], abs=1e-7)
        assert float(line[2]) == pytest.approx(places["longitude"][place], abs=1e-7)
        assert float(line[4]) == pytest.approx(cosine, abs=2e-4)
        assert float(line[6]) == pytest.approx(probability, abs=2e-3)


@pytest.mark.parametrize(("precision", "most", "error"), [("float16", 0.6, 1e-3), ("int8", 0.45, 0.03)])
def test_stored_weights_shrink_the_file(exported, tmp_path, precision, most, error):
    exact = exported / "localiser.onnx"
    store_weights(exact, tmp_path / "small.onnx", precision)
    assert (tmp_path / "small.onnx").stat().st_size < most * exact.stat().st_size
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    cosines = [OnnxLocaliser(file).scores(pixels)["cosine"] for file in (exact, tmp_path / "small.onnx")]
    assert 0 < np.abs(cosines[0] - cosines[1]).max() < error


def test_a_graph_that_answers_otherwise_is_rejected(exported, project, tmp_path):
    located = PhotoLocaliser.load(project / "models" / "localiser")
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    graph = OnnxLocaliser(exported / "localiser.onnx")
    assert require_equal(graph, located.trained, located.backbone, pixels) < 1e-4
    with torch.no_grad():
        located.trained.heads[0].prototypes[0].neg_()
    located.trained.freeze()
    with pytest.raises(InputError, match=r"other cosines than Python \(they differ by up to .*nothing was"):
        require_equal(graph, located.trained, located.backbone, pixels)


def test_a_failed_check_leaves_no_file(project, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise InputError("the answers differ")

    monkeypatch.setattr("pipeline.runners.export_model.convert", lambda graph, file: file.write_bytes(b""))
    monkeypatch.setattr("pipeline.runners.export_model.OnnxLocaliser", lambda file: None)
    monkeypatch.setattr("pipeline.runners.export_model.require_equal", fail)
    assert call("--project", project, "export", "model", tmp_path / "out") == 1
    assert "the answers differ" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_not_overwritten(exported, project, capsys):
    assert call("--project", project, "export", "model", exported) == 1
    assert "exists: delete it" in capsys.readouterr().err


def test_missing_packages_are_named_with_the_command(project, tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    assert call("--project", project, "export", "model", tmp_path / "out") == 1
    assert "onnxruntime, which is not installed: run `pip install 'placecache[onnx]'`" in (
        " ".join(capsys.readouterr().err.split())
    )


def test_an_operator_that_onnx_lacks_is_named(project, tmp_path, capsys):
    new_localiser("python:onnx_test_models:eigen").save(tmp_path / "model")
    arguments = ("--project", project, "export", "model", tmp_path / "out", "--model", tmp_path / "model")
    assert call(*arguments) == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert "python:onnx_test_models:eigen cannot be exported to ONNX" in shown
    assert "linalg" in shown
    assert sorted(tmp_path.iterdir()) == [tmp_path / "model"]


def test_weights_beyond_one_file_are_rejected(project, tmp_path, monkeypatch):
    located = PhotoLocaliser.load(project / "models" / "localiser")
    monkeypatch.setattr("stages.models.onnx_export.convert.LARGEST_BYTES", 1000)
    with pytest.raises(InputError, match="one ONNX file holds 2 GB"):
        convert(LocaliserGraph(located.trained, located.backbone), tmp_path / "a.onnx")
    assert LARGEST_BYTES < 2**31


def test_the_innermost_error_is_the_reason():
    error = RuntimeError("conversion failed")
    error.__cause__ = ValueError("\n  the cause\nmore")
    assert reason_of(error) == "the cause"


def exported_equals_python(trained, folder):
    trained.save(folder / "model")
    located = PhotoLocaliser.load(folder / "model")
    convert(LocaliserGraph(located.trained, located.backbone), folder / "a.onnx")
    graph = OnnxLocaliser(folder / "a.onnx")
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    return max(
        require_equal(graph, located.trained, located.backbone, batch) for batch in (pixels, pixels[:1])
    )


def test_places_with_several_classes_are_scored_in_the_graph(tmp_path):
    trained = new_localiser("python:onnx_test_models:small")
    own = Places.of(trained.classes)
    votes = np.stack([np.arange(len(own)), np.r_[np.arange(1, len(own)), -1]], axis=1)
    trained.__dict__["places"] = replace(own, votes=votes, summed=True)  # each place and its neighbour
    located = PhotoLocaliser(trained, _backbone(trained), crops=1)
    convert(LocaliserGraph(trained, located.backbone), tmp_path / "a.onnx")
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    assert require_equal(OnnxLocaliser(tmp_path / "a.onnx"), trained, located.backbone, pixels) < 1e-4


def _backbone(trained):
    from stages.models.backbones.backbone import load_backbone

    return load_backbone(trained.recipe.backbone, weights="pretrained", image_size=SIDE)


def test_trained_blocks_of_a_timm_model_are_exported(tmp_path):
    tail = AggregatorSettings("salad", 4, 8, 4)
    trained = new_localiser("timm:test_resnet", weights="random", outputs=("avg", "cut2"), tail=tail)
    assert exported_equals_python(trained, tmp_path) < 1e-4
