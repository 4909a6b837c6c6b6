"""DVC reruns exactly the stages that a change affects; on a small toy city."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.project.init import commit_all, make_project, set_params

SMALL = {
    "toycity.images": 240,
    "toycity.queries": 30,
    "extract.backbone": "efficientnet_lite0",
    "extract.image_size": 96,
    "train.epochs": 2.0,
}
ALL = {
    "index",
    "partition",
    "extract@database",
    "extract@queries",
    "extract@views",
    "train",
    "eval",
    "report",
}


def dvc(project: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=project,
        env={**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def stages_run(output: str) -> set[str]:
    lines = [line for line in output.splitlines() if line.startswith("Running stage '")]
    return {line.split("'")[1] for line in lines}


def files_of(store: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city")
    make_project(folder, SMALL)
    assert stages_run(dvc(folder, "repro")) == ALL
    commit_all(folder, "Baseline")
    return folder


def test_a_second_repro_runs_nothing(project: Path) -> None:
    assert stages_run(dvc(project, "repro")) == set()


def test_features_are_stored_once(project: Path) -> None:
    def digests(folder: Path) -> set[str]:
        return {hashlib.md5(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}

    cached, stores = digests(project / ".dvc" / "cache"), (project / "data" / "features").rglob("*.zarr")
    features = set().union(*map(digests, stores))  # beside them lie the notes that DVC tracks
    index = project / "data" / "index"
    # DVC does copy small outputs, but not the lengths and dates of files, which differ between machines.
    kept = {hashlib.md5(path.read_bytes()).hexdigest() for path in index.glob("*-files.parquet")}
    assert len(kept) == 2
    assert digests(index) & cached == digests(index) - kept
    assert len(features) > 20
    assert not features & cached


def test_metrics_are_shown_and_compared(project: Path) -> None:
    shown = json.loads(dvc(project, "metrics", "show", "--json"))
    numbers = shown[""]["data"]["metrics.json"]["data"]["classify"]
    assert {"LR@1", "LR@5", "LR@10", "LR@20"} <= set(numbers)
    assert 0 <= numbers["LR@1"] <= numbers["LR@20"] <= 100


def test_training_curves_are_plotted(project: Path) -> None:
    drawn = json.loads(dvc(project, "plots", "show", "--json"))
    assert not [error for error in drawn.get("errors", ()) if "training" in error["source"]]
    for title, metric in (("loss", "loss"), ("LR@1 on held-out images", "validation_lr1")):
        (plot,) = drawn["data"][title]
        points = plot["content"]["data"]["values"]
        assert len({point["step"] for point in points}) > 2, title
        assert all(float(point[metric]) >= 0 for point in points)


def test_a_training_setting_reruns_training_only(project: Path) -> None:
    features = project / "data" / "features"
    before = files_of(features)
    output = dvc(project, "exp", "run", "-S", "train.epochs=1")
    assert stages_run(output) == {"train", "eval", "report"}
    assert files_of(features) == before
    difference = json.loads(dvc(project, "metrics", "diff", "--json", "HEAD"))
    assert "metrics.json" in difference


def test_a_partition_setting_keeps_database_features(project: Path) -> None:
    before = files_of(project / "data" / "features" / "efficientnet_lite0-96" / "database.zarr")
    set_params(project / "params.yaml", {"partition.cell_m": 15.0})
    assert stages_run(dvc(project, "repro")) == {"partition", "extract@views", "train", "eval", "report"}
    assert files_of(project / "data" / "features" / "efficientnet_lite0-96" / "database.zarr") == before


def test_another_image_size_keeps_the_old_features(project: Path) -> None:
    set_params(project / "params.yaml", {"extract.image_size": 64})
    assert stages_run(dvc(project, "repro")) >= {"extract@database", "extract@queries", "extract@views"}
    assert (project / "data" / "features" / "efficientnet_lite0-96" / "database.zarr").exists()
