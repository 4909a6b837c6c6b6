"""A project on features of another program: `dvc repro` continues it, and pairs go to hloc and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.project.init import make_project
from tests.end_to_end.test_dvc import dvc, files_of, stages_run

CELLS = 40


def write_split(folder: Path, split: str, cells: np.ndarray, centres: np.ndarray) -> tuple[str, str]:
    """Write features that lie around the centre of their cell, and positions in that cell."""
    random = np.random.default_rng(len(cells))
    np.save(folder / f"{split}.npy", centres[cells] + 0.3 * random.normal(size=(len(cells), 16)))
    corners = np.stack([550_000 + 10 * (cells % 8), 4_180_000 + 10 * (cells // 8)], axis=1)
    rows = corners + random.uniform(1, 9, (len(cells), 2))
    lines = [f"{split}/{row:03d}.jpg,{east},{north},10S" for row, (east, north) in enumerate(rows)]
    (folder / f"{split}.csv").write_text("\n".join(["path,utm_east,utm_north,zone", *lines]) + "\n")
    return str(folder / f"{split}.npy"), str(folder / f"{split}.csv")


def call(project: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(("--project", str(project), *arguments))
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    centres = np.random.default_rng(0).normal(size=(CELLS, 16))
    make_project(folder / "project", {"train.epochs": 2.0, "eval.bootstrap": 0})
    for split, cells in (("database", np.arange(400) // 10), ("queries", np.arange(CELLS))):
        files = write_split(folder, split, cells, centres)
        assert call(folder / "project", "import", "features", *files, "--split", split, "--name", "mine") == 0
    for command in ("partition", "train-heads", "eval"):
        assert call(folder / "project", command) == 0
    return folder / "project"


def test_heads_are_trained_on_imported_features(project: Path) -> None:
    metrics = json.loads((project / "details.json").read_text())
    assert metrics["retrieve"]["LR@1"] > 90


def test_repro_continues_and_leaves_imported_features_alone(project: Path) -> None:
    store = project / "data" / "features" / "imported-mine-224" / "database.zarr"
    before, index = files_of(store), (project / "data/index/database.parquet").read_bytes()
    stages = ("extract@database", "extract@views")
    assert stages_run(dvc(project, "repro", *stages)) == {"index", "partition", *stages}
    assert stages_run(dvc(project, "repro", *stages)) == set()
    assert files_of(store) == before
    assert (project / "data/index/database.parquet").read_bytes() == index


def test_pairs_come_back_with_the_recall_of_retrieve(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.txt"
    assert call(project, "export", "pairs", str(pairs), "--top", "5") == 0
    names = [line.split(" ") for line in pairs.read_text().splitlines()]
    assert [query for query, _ in names[::5]] == [f"queries/{row:03d}.jpg" for row in range(CELLS)]
    capsys.readouterr()
    assert call(project, "import", "pairs", str(pairs)) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines() if "LR@" in line)
    metrics = json.loads((project / "details.json").read_text())
    assert float(printed["LR@1"]) == round(metrics["retrieve"]["LR@1"], 1)
    pairs.write_text("queries/000.jpg elsewhere.jpg\n")
    assert call(project, "import", "pairs", str(pairs)) == 1
    assert "names elsewhere.jpg, which is not in the index of database" in " ".join(
        capsys.readouterr().err.split()
    )
