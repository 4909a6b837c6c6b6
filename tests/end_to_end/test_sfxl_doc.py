"""Every command and setting of docs/sfxl.md, on a drawn miniature with the folders of SF-XL."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from cache.recipe import Recipe
from pipeline.checks.doctor import needed_bytes
from pipeline.cli import main
from pipeline.console import duration, size
from pipeline.project.init import set_params
from pipeline.project.params import load_params
from stages.models.backbones.outputs import output_lengths
from stages.toycity.config import CityConfig
from stages.toycity.draw import draw

PAGE = (Path(__file__).parents[2] / "docs" / "sfxl.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|yaml)\n(.*?)```", PAGE, re.DOTALL)
MINIATURE = {  # what differs from the page: small images, random weights, small classes
    "extract.backbone": "efficientnet_lite0",
    "extract.weights": "random",
    "extract.image_size": 32,
    "extract.precision": "float32",
    "extract.compile": False,
    "extract.batch_size": 32,
    "partition.min_images_per_class": 2,
    "partition.max_views": 1,
    "train.batch_size": 16,
    "train.compile": False,
    "train.embedding_dim": 16,
    "eval.bootstrap": 20,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The published folders, with 60 images and 12 queries of the toy city in them."""
    folder = tmp_path_factory.mktemp("sfxl")
    draw(CityConfig(60, 12, 0, 64, 0.0), folder / "toycity", workers=1)
    images, queries = (
        sorted((folder / "toycity" / split).glob("@*.jpg")) for split in ("database", "queries")
    )
    copies = {
        "sf_xl/raw/train/database/37.76": images[:30],
        "sf_xl/raw/train/database/37.77": images[30:],
        "sf_xl/processed/test/database": images[:5],
        "sf_xl/processed/test/queries_v1": queries[:5],
        "sf_xl/processed/test/queries_v2": queries[5:9],
        "sf_xl/processed/val/database": images[:5],
        "sf_xl/processed/val/queries": queries[9:],
    }
    for name, files in copies.items():
        (folder / name).mkdir(parents=True)
        for file in files:
            shutil.copy(file, folder / name)
    for split, files in {"database": images[:4], "queries": queries[:2]}.items():
        (folder / "msls" / "val" / split).mkdir(parents=True)
        for file, city in zip(files, ("cph", "sf", "cph", "sf"), strict=False):
            fields = file.name.split("@")
            name = "@".join([*fields[:-2], f"day_forward_{city}", fields[-1]])
            shutil.copy(file, folder / "msls" / "val" / split / name)
    return folder


def flat(section, prefix=""):
    """Return nested settings as `section.key` -> value."""
    values = {}
    for key, value in section.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return values


def edit(text, project):
    set_params(project / "params.yaml", flat(YAML(typ="safe").load(text)) | MINIATURE)
    load_params(project / "params.yaml")
    rows = project / "experiments.yaml"
    rows.write_text(rows.read_text().replace("dinov2_vits14", "timm:test_vit"))


def execute(line, place, monkeypatch):
    """Run one line of a block in a folder; return the folder of the next line."""
    words = shlex.split(line, comments=True)
    if words[0] == "cd":
        return (place / words[1]).resolve()
    monkeypatch.chdir(place)
    if words[0] == "pipeline":
        with pytest.raises(SystemExit) as stopped:
            main(words[1:])
        assert stopped.value.code == 0, line
    else:
        subprocess.run(line, cwd=place, shell=True, check=True)
    return place


def test_every_command_of_the_page_runs(folder, monkeypatch, capsys):
    place, shown = folder, {}
    for kind, text in BLOCKS:
        if kind == "yaml":
            edit(text, folder / "city")
            continue
        for line in text.strip().splitlines():
            place = execute(line, place, monkeypatch)
            shown.setdefault(shlex.split(line, comments=True)[1], []).append(
                " ".join(capsys.readouterr().out.split())
            )
    assert "set queries_v1 5" in shown["index"][0]
    assert "computed 3 reused 9" in shown["extract"][1]
    assert "queries_v2 LR@1" in shown["experiments"][0]
    assert "hybrid: LR@N of each query set" in shown["experiments"][1]
    sets = json.loads((folder / "city" / "details.json").read_text())["sets"]
    assert {name: block["queries"] for name, block in sets.items()} == {
        "queries_v1": 5,
        "queries_v2": 4,
        "queries": 3,
    }
    assert len((folder / "msls-cph-database.txt").read_text().splitlines()) == 2


def test_hours_and_gigabytes_are_those_of_doctor():
    rows = re.findall(r"\| (\d+) \| (\w+) \| (\d+) \| ([\d hmin]+) \| ([\d.]+ GB) \|", PAGE)
    assert len(rows) == 6
    for rate, backbone, images, hours, gigabytes in rows:
        outputs = output_lengths(backbone, 224, ("avg",) if backbone == "efficientnet_lite0" else "default")
        recipe = Recipe(backbone, "random", "0" * 64, 224, {}, outputs, "float16", "bfloat16")
        assert duration(int(images) / int(rate)) == hours
        assert size(needed_bytes(int(images), recipe)) == gigabytes
