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
    manifest.parent.mkdir(parents=True, exist_ok=True)
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
    return project / "data" / "features" / "database.json"


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
    assert (first["rows"], first["chunks"], first["chunks_done"]) == (ROWS, 2, 2)

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


def test_features_in_the_project_get_the_same_link(base, features, capsys):
    split, default = (
        ("--split", "database", "--device", "cpu"),
        link(base).parent / NAME / "database.zarr",
    )
    assert call(capsys, base, "extract", *split)[0] == 0
    elsewhere = link(base).read_bytes()
    default.parent.mkdir(parents=True, exist_ok=True)
    default.write_text("a link of an earlier version")
    set_params(base / "params.yaml", {"data.features": "data/features"})
    assert call(capsys, base, "verify", "--split", "database")[0] == 1
    assert call(capsys, base, "extract", *split)[0] == 0
    assert content(default) == content(base / "expected" / "database.zarr")
    assert link(base).read_bytes() == elsewhere
    shutil.rmtree(default)


def test_a_link_changes_with_the_features(base, features, capsys):
    split = ("--split", "database", "--device", "cpu")
    assert call(capsys, base, "extract", *split)[0] == 0
    before = json.loads(link(base).read_text())
    file = features / NAME / "database.zarr" / "ledger" / "000001.json"
    entry = json.loads(file.read_bytes())
    entry["crc32"]["avg"] ^= 1
    # An entry whose own checksum differs is damaged: its chunk is written again, as it was.
    file.write_bytes(json.dumps(entry).encode())
    assert "damaged chunks done again 1" in call(capsys, base, "extract", *split)[1]
    assert json.loads(link(base).read_text()) == before
    # One without a checksum, as in earlier versions, counts: it stands for other features.
    del entry["checksum"]
    file.write_bytes(json.dumps(entry).encode())
    assert call(capsys, base, "extract", *split)[0] == 0
    after = json.loads(link(base).read_text())
    assert after["sha256"] != before["sha256"]
    assert {**after, "sha256": 0} == {**before, "sha256": 0}


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
    written = json.loads(link(project).read_text())
    assert (written["rows"], written["chunks_done"]) == (3, 1)
