"""Several crops of a photo in `locate`: what is averaged, and where the number of crops comes from."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ruamel.yaml import YAML

from pipeline.locate.localiser import PhotoLocaliser
from pipeline.project.init import template
from stages.errors import ConfigError
from stages.images.read import read_image
from tests.pipeline.locate.test_locate import call, recipe, save_localiser, scene


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_localiser(tmp_path_factory.mktemp("model") / "localiser", recipe(), calibrated=True)


@pytest.fixture(scope="module")
def one(model):
    return PhotoLocaliser.load(model, crops=1)


@pytest.fixture(scope="module")
def three(model):
    return PhotoLocaliser.load(model)


def test_features_of_the_crops_are_averaged(one, three, tmp_path):
    scene(160, 64).save(tmp_path / "wide.png")
    image = read_image(tmp_path / "wide.png")
    for name, left in (("left", 0), ("centre", 48), ("right", 96)):
        image.crop((left, 0, left + 64, 64)).save(tmp_path / f"{name}.png")
    own = [
        one.features.of([one.features.read(tmp_path / f"{name}.png")])[0]
        for name in ("left", "centre", "right")
    ]
    together = three.features.of([three.features.read(tmp_path / "wide.png")])[0]
    assert together.shape == own[0].shape
    difference = np.abs(together - np.mean(own, axis=0)).max()
    # The crop keeps no margin at the ends, where a photo of its own loses an eighth.
    assert difference < np.abs(own[0].astype(float) - own[2]).max() / 2


def test_a_square_photo_is_computed_once(one, three, tmp_path, monkeypatch):
    scene(90, 90).save(tmp_path / "square.png")
    batches = []
    forward = three.backbone.forward
    monkeypatch.setattr(
        three.backbone, "forward", lambda pixels: batches.append(len(pixels)) or forward(pixels)
    )
    assert three.locate(tmp_path / "square.png").as_dict() == one.locate(tmp_path / "square.png").as_dict()
    scene(120, 90).save(tmp_path / "wide.png")
    three.locate(tmp_path / "wide.png")
    assert batches == [1, 3]


def test_crops_go_with_together_and_walks(three, tmp_path):
    photos = [tmp_path / "wide.png", tmp_path / "square.png"]
    for photo, width in zip(photos, (120, 90), strict=True):
        scene(width, 90).save(photo)
    assert len(three.locate_walk(photos, speed_m_s=1.0)) == 2
    assert three.locate_together(photos)[0].together == tuple(photos)


def test_the_project_says_how_many_crops(model, three, tmp_path, capsys):
    photo = tmp_path / "wide.png"
    scene(160, 80).save(photo)
    project = tmp_path / "project"
    (project / "models").mkdir(parents=True)
    (project / "models" / "localiser").symlink_to(model)
    settings = YAML().load(template("params.yaml").read_text())
    assert settings["eval"]["crops"] == 3  # without a project as well
    settings["eval"]["crops"] = 1
    YAML().dump(settings, project / "params.yaml")

    def located(*options):
        code, out, _ = call(capsys, "--project", project, "locate", "--format", "json", photo, *options)
        assert code == 0
        return json.loads(out)

    assert located("--model", model) == [three.locate(photo).as_dict()]
    assert located("--crops", "3") != located() == located("--model", model, "--crops", "1")
    assert located("--model", model) == located("--crops", "3")


def test_another_number_of_crops_is_rejected(model):
    with pytest.raises(ConfigError, match="crops is 2: expected 1, 3 or 5"):
        PhotoLocaliser.load(model, crops=2)
