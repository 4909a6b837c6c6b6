"""A project whose features live elsewhere: extracted, looked after, exported, noted for DVC."""

from __future__ import annotations

import json
import shutil
from uuid import uuid4

import numpy as np
import pytest

from cache.storage.paths import storage_path
from pipeline.cli import main
from pipeline.project.init import set_params, template
from tests.cache.test_store import content
from tests.support.tiny_photos import CONFIG, draw, listed, run

ROWS = 70
NAME = "efficientnet_lite0-32"
SETTINGS = {
    "extract.backbone": "efficientnet_lite0",
    "extract.image_size": 32,
    "extract.outputs": ["avg", "gem"],
    "extract.shards": 2,
    "extract.batch_size": 20,
    "extract.threads": 1,
    "data.database": "photos",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A project with an index, and the store that extracting it must give."""
    folder = tmp_path_factory.mktemp("elsewhere")
    keys = [f"{number:04d}.jpg" for number in range(ROWS)]
    for number, key in enumerate(keys):
        draw(folder / "photos" / key, number)
    (folder / "photos" / "0007.jpg").write_text("a letter")
    (folder / "params.yaml").write_text(template("params.yaml").read_text())
    manifest = folder / "data" / "index" / "database.parquet"
    manifest.parent.mkdir(parents=True)
    run(listed(manifest, folder / "photos", keys), folder / "whole" / "database.zarr", CONFIG)
    return folder


@pytest.fixture(params=["memory", "file"])
def features(request, base, tmp_path):
    """Where the project's features live."""
    home = f"memory://{uuid4().hex}" if request.param == "memory" else f"file://{tmp_path}/shared"
    set_params(base / "params.yaml", {**SETTINGS, "data.features": home})
    place = storage_path(home)
    yield place
    place.delete_store()
    note(base).unlink(missing_ok=True)


def note(project):
    return project / "data" / "features" / NAME / "database.zarr"


def call(capsys, project, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(("--project", str(project), *arguments))
    said = capsys.readouterr()
    return stopped.value.code or 0, " ".join((said.out + said.err).split())


def test_features_elsewhere_are_made_checked_mended_and_exported(base, features, tmp_path, capsys):
    split, store = ("--split", "database"), features / NAME / "database.zarr"
    assert call(capsys, base, "extract", *split, "--device", "cpu")[0] == 0
    assert content(store) == content(base / "whole" / "database.zarr")
    first = json.loads(note(base).read_text())
    assert (first["features"], first["rows"], first["chunks_done"]) == (str(store), ROWS, 2)

    code, said = call(capsys, base, "status", "--bad")
    assert code == 0
    assert "0007.jpg" in said
    assert call(capsys, base, "verify")[0] == 0
    assert "complete" in call(capsys, base, "doctor", "--device", "cpu")[1]

    file = store / "avg/c/1/0"
    hurt = bytearray(file.read_bytes())
    hurt[3] ^= 1
    file.write_bytes(bytes(hurt))
    code, said = call(capsys, base, "verify", *split)
    assert code == 1
    assert "bytes changed since they were written" in said
    assert call(capsys, base, "extract", *split, "--device", "cpu", "--repair")[0] == 0
    assert content(store) == content(base / "whole" / "database.zarr")
    assert json.loads(note(base).read_text()) == first

    assert call(capsys, base, "export", "features", str(tmp_path / "out.npy"), *split)[0] == 0
    assert np.load(tmp_path / "out.npy").shape[0] == ROWS


def test_a_store_in_the_project_and_a_note_do_not_take_each_others_place(base, features, capsys):
    split = ("--split", "database", "--device", "cpu")
    note(base).mkdir(parents=True)
    code, said = call(capsys, base, "extract", *split)
    assert code == 1
    assert "holds features: copy them there" in said
    note(base).rmdir()
    assert call(capsys, base, "extract", *split)[0] == 0
    assert note(base).is_file()
    set_params(base / "params.yaml", {"data.features": "data/features"})
    code, said = call(capsys, base, "status")
    assert code == 0
    assert "features database │ │ none" in said
    code, said = call(capsys, base, "verify", "--split", "database")
    assert code == 1
    assert "no feature store" in said
    assert call(capsys, base, "extract", *split)[0] == 0
    assert content(note(base)) == content(base / "whole" / "database.zarr")
    shutil.rmtree(note(base))


def test_features_taken_in_are_noted_too(base, features, tmp_path, capsys):
    lines = ["path,utm_east,utm_north,zone", *(f"{row:02d}.jpg,{row},0,10S" for row in range(3))]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    np.save(tmp_path / "mine.npy", np.eye(3, dtype=np.float16))
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(base / "params.yaml", project / "params.yaml")
    files = (str(tmp_path / "mine.npy"), str(tmp_path / "mine.csv"))
    done = call(capsys, project, "import", "features", *files, "--split", "database", "--name", "mine")
    assert done[0] == 0
    noted = json.loads(note(project).read_text())
    assert (noted["features"], noted["rows"]) == (str(features / NAME / "database.zarr"), 3)
