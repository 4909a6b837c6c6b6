"""Features outside the project: extract, check, repair, export, and the link that DVC tracks."""

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
    """A project with an index, and the store that extracting it must produce."""
    folder = tmp_path_factory.mktemp("elsewhere")
    keys = [f"{number:04d}.jpg" for number in range(ROWS)]
    for number, key in enumerate(keys):
        draw(folder / "photos" / key, number)
    (folder / "photos" / "0007.jpg").write_text("a letter")
    (folder / "params.yaml").write_text(template("params.yaml").read_text())
    manifest = folder / "data" / "index" / "database.parquet"
    manifest.parent.mkdir(parents=True)
    run(listed(manifest, folder / "photos", keys), folder / "expected" / "database.zarr", CONFIG)
    return folder


@pytest.fixture(params=["memory", "file"])
def features(request, base, tmp_path):
    """The folder of the project's features."""
    home = f"memory://{uuid4().hex}" if request.param == "memory" else f"file://{tmp_path}/shared"
    set_params(base / "params.yaml", {**SETTINGS, "data.features": home})
    place = storage_path(home)
    yield place
    place.delete_store()
    link(base).unlink(missing_ok=True)


def link(project):
    return project / "data" / "features" / NAME / "database.zarr"


def call(capsys, project, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(("--project", str(project), *arguments))
    printed = capsys.readouterr()
    return stopped.value.code or 0, " ".join((printed.out + printed.err).split())


def test_features_elsewhere_are_extracted_and_repaired(base, features, tmp_path, capsys):
    split, store = ("--split", "database"), features / NAME / "database.zarr"
    assert call(capsys, base, "extract", *split, "--device", "cpu")[0] == 0
    assert content(store) == content(base / "expected" / "database.zarr")
    first = json.loads(link(base).read_text())
    assert (first["features"], first["rows"], first["chunks_done"]) == (str(store), ROWS, 2)

    code, printed = call(capsys, base, "status", "--bad")
    assert code == 0
    assert "0007.jpg" in printed
    assert call(capsys, base, "verify")[0] == 0
    assert "complete" in call(capsys, base, "doctor", "--device", "cpu")[1]

    file = store / "avg/c/1/0"
    damaged = bytearray(file.read_bytes())
    damaged[3] ^= 1
    file.write_bytes(bytes(damaged))
    code, printed = call(capsys, base, "verify", *split)
    assert code == 1
    assert "bytes changed since they were written" in printed
    assert call(capsys, base, "extract", *split, "--device", "cpu", "--repair")[0] == 0
    assert content(store) == content(base / "expected" / "database.zarr")
    assert json.loads(link(base).read_text()) == first

    assert call(capsys, base, "export", "features", str(tmp_path / "out.npy"), *split)[0] == 0
    assert np.load(tmp_path / "out.npy").shape[0] == ROWS


def test_a_store_and_a_link_never_overwrite_each_other(base, features, capsys):
    split = ("--split", "database", "--device", "cpu")
    link(base).mkdir(parents=True)
    code, printed = call(capsys, base, "extract", *split)
    assert code == 1
    assert "also holds features: move them" in printed
    link(base).rmdir()
    assert call(capsys, base, "extract", *split)[0] == 0
    assert link(base).is_file()
    set_params(base / "params.yaml", {"data.features": "data/features"})
    code, printed = call(capsys, base, "status")
    assert code == 0
    assert "features database │ │ none" in printed
    code, printed = call(capsys, base, "verify", "--split", "database")
    assert code == 1
    assert "no feature store" in printed
    assert call(capsys, base, "extract", *split)[0] == 0
    assert content(link(base)) == content(base / "expected" / "database.zarr")
    shutil.rmtree(link(base))


def test_imported_features_get_a_link_too(base, features, tmp_path, capsys):
    lines = ["path,utm_east,utm_north,zone", *(f"{row:02d}.jpg,{500_000 + row},4e6,10S" for row in range(3))]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    np.save(tmp_path / "mine.npy", np.eye(3, dtype=np.float16))
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(base / "params.yaml", project / "params.yaml")
    files = (str(tmp_path / "mine.npy"), str(tmp_path / "mine.csv"))
    done = call(capsys, project, "import", "features", *files, "--split", "database", "--name", "mine")
    assert done[0] == 0
    name = f"imported:mine-{NAME.rpartition('-')[2]}"
    written = json.loads((project / "data/features" / name / "database.zarr").read_text())
    assert (written["features"], written["rows"]) == (str(features / name / "database.zarr"), 3)
