"""DVC reruns exactly the stages that a change affects; on a small toy city."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
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


def dvc(project: Path, *arguments: str, **environment: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=project,
        env={**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", **environment},
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
    numbers = shown[""]["data"]["metrics.json"]["data"]
    assert {"LR@1", "LR@5", "ceiling", "retrieve", "hybrid"} <= set(numbers)
    assert len(numbers) <= 8
    assert 0 <= numbers["LR@1"] <= numbers["LR@5"] <= 100


def test_all_plots_are_drawn(project: Path) -> None:
    drawn = json.loads(dvc(project, "plots", "show", "--json"))
    assert not drawn.get("errors")
    titles = {"LR@N", "error of the first answer", "LR@1 by class size", "risk and coverage"}
    assert all(drawn["data"][title][0]["content"]["data"]["values"] for title in titles)
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
    compared = json.loads(dvc(project, "plots", "diff", "HEAD", "--json"))
    assert not compared.get("errors")
    assert {"HEAD", "workspace"} <= set(compared["data"]["loss"][0]["revisions"])
    curve = project / "plots" / "training" / "loss.tsv"
    changed = curve.read_bytes()
    subprocess.run(["git", "stash", "--quiet"], cwd=project, check=True)
    dvc(project, "checkout")
    assert curve.read_bytes() != changed
    subprocess.run(["git", "stash", "pop", "--quiet"], cwd=project, check=True)
    dvc(project, "checkout")
    assert curve.read_bytes() == changed


def test_queued_experiments_use_the_features_of_the_project(project: Path) -> None:
    features, queue = project / "data" / "features", ("exp", "run", "--queue")
    before = files_of(features)
    dvc(project, *queue, "--name", "seed", "-S", "seeds.train=1", "train")
    dvc(project, *queue, "--name", "radius", "-S", "eval.radius_m=5", "eval")  # so small that LR@1 differs
    dvc(project, *queue, "--name", "extract", "--force", "--single-item", "extract@queries")
    dvc(project, "queue", "start", "--jobs", "1")
    names, end = ("seed", "radius", "extract"), time.monotonic() + 300
    while (status := dvc(project, "queue", "status")).count("Success") < len(names):
        assert "Failed" not in status
        assert time.monotonic() < end, status
        time.sleep(2)
    logs = {name: dvc(project, "queue", "logs", name) for name in names}
    dvc(project, "queue", "stop")
    assert [stages_run(logs[name]) for name in names] == [{"train"}, {"eval"}, {"extract@queries"}]
    assert re.search(r"computed\s+0\b", logs["extract"])
    others = "train.epochs|eval"  # one setting changes in the sweep of the README
    columns = ("--only-changed", "--drop", rf".*/|.*json|.*parquet|Created|State|Executor|{others}")
    table = dvc(project, "exp", "show", "--no-pager", *columns, COLUMNS="120")
    assert all(name in table for name in ("LR@1", "median_m", "seeds.train", "[radius]"))
    assert "\u2026" not in table
    assert files_of(features) == before


def test_a_partition_setting_keeps_database_features(project: Path) -> None:
    before = files_of(project / "data" / "features" / "efficientnet_lite0-96" / "database.zarr")
    set_params(project / "params.yaml", {"partition.cell_m": 15.0})
    assert stages_run(dvc(project, "repro")) == {"partition", "extract@views", "train", "eval", "report"}
    assert files_of(project / "data" / "features" / "efficientnet_lite0-96" / "database.zarr") == before


def test_another_image_size_keeps_the_old_features(project: Path) -> None:
    set_params(project / "params.yaml", {"extract.image_size": 64})
    assert stages_run(dvc(project, "repro")) >= {"extract@database", "extract@queries", "extract@views"}
    assert (project / "data" / "features" / "efficientnet_lite0-96" / "database.zarr").exists()
