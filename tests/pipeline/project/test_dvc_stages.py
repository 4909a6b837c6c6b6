"""Which stages a change of each setting reruns, as DVC itself says, from one table."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from pipeline.project.init import make_project

EXTRACT = {"extract@database", "extract@queries", "extract@views"}
# Longest prefix first; a stage behind these reruns only if a file of theirs changes.
RERUN = {
    "seeds.views": {"partition", "extract@views"},
    "seeds.train": {"train"},
    "data.features": EXTRACT,
    "data": {"index"},
    "toycity": {"index"},
    "index": {"index"},
    "pack": set(),
    "partition": {"partition"},
    "augment": {"extract@views"},
    "extract.compile": set(),
    "extract.shards": set(),
    "extract.batch_size": set(),
    "extract.readers": set(),
    "extract.threads": set(),
    "extract.max_bad_fraction": set(),
    "extract": EXTRACT,
    "train.checkpoint_s": set(),
    "train": {"train"},
    "eval.fusion": {"train", "eval"},
    "eval.crops": {"extract@queries", "eval"},
    "eval": {"eval"},
    "report": {"report"},
}
OTHER = {"extract.backbone": "efficientnet_lite0", "extract.image_size": 448}


def settings(section, prefix=""):
    for name, value in section.items():
        if isinstance(value, dict):
            yield from settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def expected(name):
    prefixes = [prefix for prefix in RERUN if f"{name}.".startswith(f"{prefix}.")]
    return RERUN[max(prefixes, key=len)]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose stages DVC believes done: their files exist, with no content."""
    folder = tmp_path_factory.mktemp("stages")
    make_project(folder, {})
    with Repo(str(folder)) as repo:
        for stage in repo.index.stages:
            for out in stage.outs:
                path = Path(out.fs_path)
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.name in ("localiser", "figures"):
                    path.mkdir()
                    path /= "classes.parquet"  # which the report reads from the localiser
                path.write_text(path.name)
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    commit = [sys.executable, "-m", "dvc", "commit", "--force", "--quiet"]
    subprocess.run(commit, cwd=folder, check=True, env=environment)
    return folder


def rerun_stages(project):
    with Repo(str(project)) as repo:
        return {name.rpartition(":")[2] for name in repo.status()}


def test_every_setting_reruns_exactly_the_stages_of_the_table(project):
    with Repo(str(project)) as repo:
        tracked = {
            stage.addressing.rpartition(":")[2]: {
                name for dep in stage.deps if hasattr(dep, "params") for name in dep.params
            }
            for stage in repo.index.stages
        }
    wrong = {}
    for name in settings(YAML(typ="safe").load((project / "params.yaml").read_text())):
        rerun = {
            stage
            for stage, params in tracked.items()
            if any(f"{name}.".startswith(f"{param}.") for param in params)
        }
        if rerun != expected(name):
            wrong[name] = rerun
    assert wrong == {}


@pytest.mark.parametrize(
    "name",
    [
        "extract.backbone",
        "extract.image_size",
        "extract.decoder",
        "train.checkpoint_s",
        "eval.fusion.likeness",
    ],
)
def test_dvc_agrees_with_the_table(project, name):
    file, yaml = project / "params.yaml", YAML()
    original = file.read_text()
    assert rerun_stages(project) == set()
    document = yaml.load(original)
    section, (*parents, key) = document, name.split(".")
    for parent in parents:
        section = section[parent]
    section[key] = OTHER.get(name, "another value")
    with file.open("w") as changed:
        yaml.dump(document, changed)
    try:
        assert rerun_stages(project) == expected(name)
    finally:
        file.write_text(original)


def test_files_rerun_exactly_the_stages_that_read_them(project):
    table = {
        "data/index/database.parquet": {"index", "partition", "extract@database", "extract@views"},
        "data/partition/views.parquet": {"partition", "extract@views", "train"},
        "data/features/views.json": {"extract@views", "train"},
    }
    table["data/index/database.parquet"] |= {"train", "eval", "report"}
    for name, stages in table.items():
        path = project / name
        before = path.read_text()
        path.write_text("changed")
        assert rerun_stages(project) == stages, name
        path.write_text(before)
