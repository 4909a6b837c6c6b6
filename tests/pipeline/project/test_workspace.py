"""A temporary workspace of DVC, as `dvc exp run --queue` makes it, reads the data of its project."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.project.init import set_params, template
from stages.files import path_at_home
from stages.index.manifest import Manifest
from tests.support.tiny_photos import draw


@pytest.mark.parametrize("workspace", ["tmp1234", "standalone/tmp1234"])  # of --queue and of --temp
@pytest.mark.parametrize("subfolder", ["", "places/city"])
def test_paths_lead_to_the_project(tmp_path: Path, workspace: str, subfolder: str) -> None:
    project = tmp_path / "repository" / subfolder
    copy = project / ".dvc" / "tmp" / "exps" / workspace / subfolder
    (copy / ".dvc").mkdir(parents=True)
    assert path_at_home(copy) == project
    assert path_at_home(copy / "data" / "index") == project / "data" / "index"
    assert path_at_home(project) == project
    assert path_at_home(Path("photos")) == Path("photos")


def test_index_writes_the_same_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    for split in ("database", "queries"):
        draw(project / "photos" / split / "0.jpg", 0)
        (project / "photos" / f"{split}.csv").write_text(f"path,lat,lon\n{split}/0.jpg,45.5,9.2\n")
    shutil.copyfile(template("params.yaml"), project / "params.yaml")
    sources = {f"data.{split}": f"photos/{split}.csv" for split in ("database", "queries")}
    set_params(project / "params.yaml", sources)
    copy = project / ".dvc" / "tmp" / "exps" / "tmp1234"
    (copy / ".dvc").mkdir(parents=True)
    shutil.copyfile(project / "params.yaml", copy / "params.yaml")
    manifests = []
    for folder in (project, copy):
        monkeypatch.chdir(folder)
        with pytest.raises(SystemExit) as stopped:
            main(["index"])
        assert stopped.value.code == 0
        manifests.append(Manifest.open(folder / "data" / "index" / "queries.parquet"))
    assert manifests[0].path.read_bytes() == manifests[1].path.read_bytes()
    assert all(manifest.image_path("queries/0.jpg").exists() for manifest in manifests)
