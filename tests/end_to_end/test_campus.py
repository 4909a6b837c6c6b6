"""The whole pipeline on real photos of a campus by day and night; skipped without the photos."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from statistics import mean

import pytest

from pipeline.cli import main
from pipeline.project.init import set_params, template

CAMPUS = Path(os.environ.get("PLACECACHE_CAMPUS", Path(__file__).parents[3] / "shared" / "data" / "campus"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CAMPUS / "database.csv").is_file(), reason=f"no photos in {CAMPUS}"),
]


def call(project: Path, *arguments: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--project", str(project), *arguments])
    assert stopped.value.code == 0


def test_campus_photos_need_only_other_settings(tmp_path):
    shutil.copyfile(template("params.yaml"), tmp_path / "params.yaml")
    set_params(tmp_path / "params.yaml", {
        "data.database": str(CAMPUS / "database.csv"),
        "data.queries": str(CAMPUS / "queries.csv"),
        "partition.cell_m": 20.0,
        "extract.backbone": "efficientnet_lite0",
    })  # fmt: skip
    for command in ("index", "partition", "extract"):
        call(tmp_path, command)
    results = []
    for seed in range(2):
        set_params(tmp_path / "params.yaml", {"seeds.train": seed})
        call(tmp_path, "train-heads")
        call(tmp_path, "eval")
        results.append(json.loads((tmp_path / "details.json").read_text()))
    assert results[0]["classify"]["queries"] == 205
    assert results[0]["classify"]["chance"] < 10
    assert (
        mean(numbers["classify"]["LR@1"] for numbers in results) >= 72
    )  # 78.2, less three times the spread over seeds
    assert mean(numbers["hybrid"]["LR@1"] for numbers in results) >= 74
