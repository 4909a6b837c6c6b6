"""Rows of settings trained side by side: what is shared, what is kept, and what the tables say."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.cli import main
from pipeline.comparison import Gain, Spread, markdown
from pipeline.experiment_rows import chosen_rows, read_plan
from pipeline.params import load_params
from pipeline.project import set_params, template
from stages.errors import ConfigError

SMALL = {
    "toycity.images": 60,
    "toycity.queries": 12,
    "toycity.image_px": 64,
    "partition.max_views": 1,
    "extract.backbone": "efficientnet_lite0",
    "extract.image_size": 64,
    "train.epochs": 2.0,
    "train.initial_weights": "random",
    "train.exemplars": 0,
    "eval.bootstrap": 0,
}
PLAN = """
rows:
  plain: {train.augment_views: false}
  longtail: {train.augment_views: true}
  wide: {partition.cell_m: 20.0}
  absent: {extract.weights: nowhere.pth, extract.image_size: 96}
compare:
  - [longtail, plain]
  - [absent, plain]
"""


def call(project: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["--project", str(project), *arguments])
    return int(stopped.value.code or 0)


def lay_out(folder: Path, plan: str) -> Path:
    folder.mkdir(exist_ok=True)
    shutil.copyfile(template("params.yaml"), folder / "params.yaml")
    set_params(folder / "params.yaml", SMALL)
    (folder / "experiments.yaml").write_text(plan)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose rows have been run with two seeds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = lay_out(tmp_path_factory.mktemp("rows"), PLAN)
    assert call(folder, "experiments", "--seeds", "0-1", "--device", "cpu") == 0
    yield folder
    torch.set_num_threads(threads)


def content(project):
    return json.loads((project / "experiments" / "experiments.json").read_text())


def test_rows_lie_apart_and_share_what_agrees(project):
    folder = project / "experiments"
    for row, seed in itertools.product(("plain", "longtail", "wide"), (0, 1)):
        assert (folder / row / f"seed-{seed}" / "localiser" / "meta.json").exists()
    assert len(list(folder.glob("partition-*"))) == 2
    stores = {path.name for path in (project / "data/features/efficientnet_lite0-64").glob("*.zarr")}
    assert {"database.zarr", "queries.zarr", "views.zarr"} < stores
    assert len(stores) == 4
    assert not any((project / name).exists() for name in ("models", "metrics.json", "plots"))


def test_numbers_are_those_of_the_runs(project):
    rows = content(project)["rows"]
    assert "nowhere.pth" in rows["absent"]["not_run"]
    for row in ("plain", "longtail", "wide"):
        metrics = [
            json.loads((project / "experiments" / row / f"seed-{seed}" / "metrics.json").read_text())
            for seed in (0, 1)
        ]
        values = [numbers["classify"]["LR@5"] for numbers in metrics]
        assert rows[row]["spread"]["LR@5"]["mean"] == pytest.approx(np.mean(values))
        assert rows[row]["spread"]["LR@5"]["sd"] == pytest.approx(np.std(values, ddof=1))
        kinds = metrics[0]["breakdown"]
        for bucket in ("head", "mid", "tail"):
            assert (bucket in rows[row]["spread"]) == (f"cell {bucket} LR@1" in kinds)
    (gain,) = content(project)["gains"]
    first, second = (
        rows[row]["runs"]["1"]["classify"]["LR@1"] - rows[row]["runs"]["0"]["classify"]["LR@1"]
        for row in ("longtail", "plain")
    )
    assert gain["of"]["LR@1"]["spread"]["sd"] == pytest.approx(abs(first - second) / 2**0.5)


def test_tables_name_what_was_not_run(project):
    table = (project / "experiments" / "table.md").read_text()
    assert "| plain | " in table
    assert "| longtail - plain | LR@1 | " in table
    assert "- absent: not run: " in table


def test_what_is_finished_is_not_run_again_and_what_changed_is(project, tmp_path, capsys):
    folder = shutil.copytree(project, tmp_path / "project")
    notes = sorted(folder.glob("experiments/*/seed-*/finished.json"))
    before = [note.stat().st_mtime_ns for note in notes]
    assert call(folder, "experiments", "--seeds", "0-1", "--only", "plain", "--only", "longtail") == 0
    assert capsys.readouterr().out.count("done before") == 4
    assert before == [note.stat().st_mtime_ns for note in notes]
    (folder / "experiments.yaml").write_text(PLAN.replace("{train.augment_views: true}", "{train.scale: 50}"))
    assert call(folder, "experiments", "--seeds", "1", "--only", "plain", "--only", "longtail") == 0
    assert capsys.readouterr().out.count("done before") == 1
    assert len(content(folder)["rows"]["longtail"]["runs"]) == 1


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("other: {}", "has no rows"),
        ("rows: {a/b: {}}", "'a/b' names a folder"),
        ("rows: {a: 3}", "a is 3"),
        ("rows: {a: {}}\ncompare: [[a, b]]", r"compare holds \['a', 'b'\]"),
        ("rows: {a: {train.margins: 1}}", r"train\.margins, which is no setting"),
        ("rows: {a: {data.queries: x}}", r"data\.queries, which all rows share"),
        ("rows: {a: {train.margin: 7}}", r"train\.margin is 7"),
    ],
)
def test_faults_of_the_plan_are_named(tmp_path, plan, message):
    folder = lay_out(tmp_path, plan)
    with pytest.raises(ConfigError, match=message):
        chosen_rows(folder, read_plan(folder), (), load_params(folder / "params.yaml"))


def test_unknown_rows_and_the_rows_that_come_with_the_program(tmp_path):
    folder = lay_out(tmp_path, PLAN)
    params = load_params(folder / "params.yaml")
    with pytest.raises(ConfigError, match="--only fast: experiments"):
        chosen_rows(folder, read_plan(folder), ("fast",), params)
    (folder / "experiments.yaml").unlink()
    rows = chosen_rows(folder, read_plan(folder), (), params)
    assert {row.params(3).extract.backbone for row in rows} == {"dinov2_vits14", "efficientnet_lite0"}
    assert {row.params(3).seeds.train for row in rows} == {3}


def test_gains_are_tested_as_scipy_and_brute_force_do():
    random = np.random.default_rng(0)
    first, second = random.normal(1, 1, 6), random.normal(0, 1, 6)
    gain = Gain.of(first, second)
    assert gain.t_p == pytest.approx(stats.ttest_rel(first, second).pvalue)
    exact = stats.permutation_test((first, second), _mean_gain, permutation_type="samples")
    assert gain.flip_p == pytest.approx(exact.pvalue)
    interval = stats.ttest_rel(first, second).confidence_interval()
    assert gain.spread.mean - gain.spread.half == pytest.approx(interval.low)


def _mean_gain(first, second, axis):
    return np.mean(first - second, axis=axis)


def test_one_seed_has_no_deviation_and_equal_gains_no_t_test():
    assert str(Spread.of([71.04])) == "71.0"
    assert Gain.of([1.0], [2.0]).t_p is None
    assert Gain.of([1.0], [2.0]).flip_p is None
    assert Gain.of([2.0, 3.0], [1.0, 2.0]).t_p is None
    assert Gain.of([2.0, 3.0], [2.0, 3.0]).t_p == 1
    assert Gain.of([2.0, 3.0], [1.0, 2.0]).flip_p == 0.5
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
