"""Experiments: which files rows share, what is run again, failures, statistics and tables."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import stats

from cache.errors import StoreInUse
from cache.reader import FeatureReader
from cache.storage.paths import total_size
from cache.storage.shard_claims import claimed
from pipeline.cli import main
from pipeline.experiments.paired_tests import QueryScores, sign_flip_p
from pipeline.experiments.rows import (
    Plan,
    chosen_rows,
    feature_settings,
    make_row,
    read_plan,
    require_localiser,
)
from pipeline.experiments.run import FAILED, HELD, Outcome
from pipeline.experiments.statistics import Comparison, Gain, Spread
from pipeline.experiments.tables import Table, shortfalls, tables
from pipeline.project.init import set_params, template
from pipeline.project.params import load_params
from stages.errors import ConfigError
from stages.extract.config import ExtractConfig
from stages.files import write_table

SMALL = {
    "toycity.images": 60,
    "toycity.queries": 12,
    "toycity.image_px": 64,
    "partition.scheme": "grid",
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


def make_project(folder: Path, plan: str) -> Path:
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
    folder = make_project(tmp_path_factory.mktemp("rows"), PLAN)
    assert call(folder, "experiments", "--seeds", "0-1", "--device", "cpu") == 0
    yield folder
    torch.set_num_threads(threads)


def content(project):
    return json.loads((project / "experiments" / "experiments.json").read_text())


def test_rows_share_partitions_and_features(project):
    folder = project / "experiments"
    for row, seed in itertools.product(("plain", "longtail", "wide"), (0, 1)):
        assert (folder / row / f"seed-{seed}" / "localiser" / "meta.json").exists()
    assert len(list(folder.glob("partition-*"))) == 2
    stores = {path.name for path in (project / "data/features/efficientnet_lite0-64").glob("*.zarr")}
    crops = {"queries-crop-0.zarr", "queries-crop-100.zarr"}
    assert {"database.zarr", "queries.zarr", "views.zarr"} | crops < stores
    assert len(stores) == 6
    assert not any((project / name).exists() for name in ("models", "metrics.json", "details.json", "plots"))


def test_spreads_and_gains_come_from_the_runs(project):
    rows = content(project)["rows"]
    assert "nowhere.pth" in rows["absent"]["not_run"]
    for row in ("plain", "longtail", "wide"):
        metrics = [
            json.loads((project / "experiments" / row / f"seed-{seed}" / "details.json").read_text())
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
    assert 0 < gain["of"]["LR@1"]["query_p"] <= 1
    assert 0 < gain["of"]["LR@1"]["units"] <= 12


def test_tables_name_what_was_not_run(project):
    table = (project / "experiments" / "table.md").read_text()
    assert "| plain | " in table
    assert "| longtail - plain | LR@1 | " in table
    assert "- absent: not run: " in table


def test_only_changed_rows_run_again(project, tmp_path, capsys):
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
        ("rows: {a: {train.margins: 1}}", r"train\.margins, which params\.yaml does not have"),
        ("rows: {a: {data.queries: x}}", r"data\.queries, which is the same for all rows"),
        ("rows: {a: {train.margin: 7}}", r"^experiments\.yaml: with the changes of a, train\.margin is 7"),
        (
            "rows: {a: {}, b: {extract.cut: 10}}",
            r"^experiments\.yaml: with the changes of b, extract\.cut is 10: efficientnet_lite0 has 7 stages",
        ),
        (
            "rows: {a: {train.tail: true}}",
            r"^experiments\.yaml: with the changes of a, train\.tail is true, but extract\.cut is none",
        ),
    ],
)
def test_faults_in_experiments_yaml_are_named(tmp_path, plan, message):
    folder = make_project(tmp_path, plan)
    with pytest.raises(ConfigError, match=message):
        chosen_rows(folder, read_plan(folder), (), load_params(folder / "params.yaml"))


def test_unknown_rows_and_shipped_rows(tmp_path):
    folder = make_project(tmp_path, PLAN)
    params = load_params(folder / "params.yaml")
    with pytest.raises(ConfigError, match="--only fast: experiments"):
        chosen_rows(folder, read_plan(folder), ("fast",), params)
    (folder / "experiments.yaml").unlink()
    rows = chosen_rows(folder, read_plan(folder), (), params)
    assert {row.params(3).extract.backbone for row in rows} == {"dinov2_vits14", "efficientnet_lite0"}
    assert {row.params(3).seeds.train for row in rows} == {3}


def test_shipped_rows_keep_backbone_and_partition(tmp_path):
    folder = make_project(tmp_path, PLAN)
    (folder / "experiments.yaml").unlink()
    trained = {
        "extract.backbone": "dinov2_vits14",
        "extract.image_size": 224,
        "extract.cut": 10,
        "train.tail": True,
        "train.aggregator.kind": "salad",
    }
    set_params(folder / "params.yaml", trained)
    rows = chosen_rows(folder, read_plan(folder), (), load_params(folder / "params.yaml"))
    assert len(rows) == 4
    for params in (row.params(0) for row in rows):
        assert params.extract.cut == "none"
        assert (params.partition.scheme, params.partition.groups_per_side) == ("grid", 2)
        assert (params.train.tail, params.train.aggregator.kind) == (False, "pooled")


def test_naming_default_settings_keeps_the_identity(project, tmp_path):
    folder = shutil.copytree(project, tmp_path / "project")
    (folder / "experiments.yaml").unlink()
    base = load_params(folder / "params.yaml")
    for row in chosen_rows(folder, read_plan(folder), (), base):
        params = row.params(1)
        before = {
            "extract.backbone": params.extract.backbone,
            "extract.outputs": "default"
            if params.extract.outputs == "default"
            else [*params.extract.outputs],
            "extract.layers": params.extract.layers,
            "train.augment_views": params.train.augment_views,
            "partition.scheme": params.partition.scheme,
            "partition.groups_per_side": params.partition.groups_per_side,
            "train.inputs": "all" if params.train.inputs == "all" else list(params.train.inputs),
            "eval.crops": params.eval.crops,
        }
        was = make_row(folder, row.name, before, base)
        assert (row.identity(1), row.paths(1)) == (was.identity(1), was.paths(1))


def test_commented_rows_and_pairs_are_valid(tmp_path):
    folder, shipped = make_project(tmp_path, PLAN), template("experiments.yaml").read_text()
    text = re.sub(r"^  # (?=[\w-]+: \{|- \[)", "  ", shipped, flags=re.MULTILINE)
    (folder / "experiments.yaml").write_text(text)
    plan = read_plan(folder)
    rows = {
        row.name: row.params(0) for row in chosen_rows(folder, plan, (), load_params(folder / "params.yaml"))
    }
    assert len(rows) == text.count("{") + 4
    assert len(plan.compare) == 6
    assert rows["efficientnet-tail"].extract.cut == 4
    assert {row.train.aggregator.kind for row in rows.values()} == {"pooled", "gem", "netvlad", "salad"}


def test_p_values_equal_those_computed_by_hand():
    gain = Gain.of([3.0, 5.0, 7.0], [2.0, 3.0, 4.0])
    t = 2 * 3**0.5  # gains 1, 2, 3: mean 2, deviation 1; with 2 degrees of freedom p = 1 - t / sqrt(2 + t²)
    assert gain.t_p == pytest.approx(1 - t / (2 + t * t) ** 0.5)
    assert gain.flip_p == 2 / 8
    assert Gain.of([1.0, 0.0, 3.0], [0.0, 1.0, 0.0]).flip_p == 6 / 8  # sums ±5, ±3, ±3, ±1
    assert Gain.of([70.4, 70.1, 70.2], [70.1, 70.4, 70.0]).flip_p == 1.0  # 0.3 - 0.3 + 0.2, in binary


def test_the_test_over_queries_resamples_units(tmp_path):
    def predictions(name, correct, cell="tail", keys=None):
        table = pa.table({
            "key": keys or [f"{row}.jpg" for row in range(len(correct))],
            "unit": np.arange(len(correct)) // 4,
            "cell": np.where(np.arange(len(correct)) < 20, cell, "head"),
            "correct@1": np.array(correct, bool),
            "hybrid_error_m": np.where(correct, 3.0, 90.0),
        })  # fmt: skip
        write_table(tmp_path / name, table, {"radius_m": 25.0})
        return {0: tmp_path / name, 1: tmp_path / name}

    # Of ten bursts of four photos, six are gained, one is lost.
    gained, lost = np.arange(40) // 4 < 6, np.arange(40) // 4 == 9
    first, second = predictions("a", gained), predictions("b", lost)
    a, b = (QueryScores.of(paths, "classify") for paths in (first, second))
    expected = np.array(list(itertools.product((-1, 1), repeat=7))).sum(axis=1)
    assert a.p_of_gain(b, "LR@1") == (pytest.approx((abs(expected) >= 5).mean()), 10)
    assert a.p_of_gain(b, "tail") == (pytest.approx(2 / 2**5), 5)
    assert a.p_of_gain(a, "LR@1") == (1.0, 10)
    assert a.p_of_gain(b, "mid") is None
    assert a.p_of_gain(b, "LR@5") is None
    other = QueryScores.of(predictions("c", lost, keys=list(map(str, range(40)))), "classify")
    assert a.p_of_gain(other, "LR@1") is None  # other queries
    other = QueryScores.of(predictions("d", lost, cell="mid"), "classify")
    assert a.p_of_gain(other, "tail") is None  # other cells
    a, b = (QueryScores.of(paths, "hybrid") for paths in (first, second))
    assert a.p_of_gain(b, "LR@1") == (pytest.approx((abs(expected) >= 5).mean()), 10)


def test_many_units_get_a_sampled_p():
    gains = np.random.default_rng(0).normal(0.3, 1, 60)
    sampled = sign_flip_p(np.append(gains, np.zeros(500)))
    assert sampled == pytest.approx(stats.ttest_1samp(gains, 0).pvalue, abs=0.02)
    assert sampled == sign_flip_p(gains)


@pytest.mark.parametrize("count", [2, 5, 8, 13, 16])
def test_p_values_equal_brute_force(count):
    random = np.random.default_rng(count)
    first, second = (np.round(random.normal(mean, 1, count), 1) for mean in (71, 70))
    gain = Gain.of(first, second)
    signs = np.array(list(itertools.product((-1, 1), repeat=count)))
    sums = np.abs(signs @ (first - second))
    assert gain.flip_p == pytest.approx((sums >= sums[0] - 1e-9).mean(), abs=1e-12)
    test = stats.ttest_rel(first, second)
    assert gain.t_p == pytest.approx(test.pvalue)
    assert gain.spread.mean - gain.spread.half == pytest.approx(test.confidence_interval().low)


def test_the_sign_flip_test_takes_up_to_16_seeds():
    assert Gain.of([1.0] * 16 + [2.0], [0.0] * 17).flip_p is None


def test_nearly_equal_gains_give_no_warning():
    assert Gain.of([20.1, 22.2, 21.2], [18.1, 20.2, 19.2]).flip_p == 0.25


def test_one_seed_and_equal_gains():
    assert Spread.of([71.04]).text() == "71.0"
    assert Gain.of([1.0], [2.0]).t_p is None
    assert Gain.of([1.0], [2.0]).flip_p is None
    assert Gain.of([2.0, 3.0], [1.0, 2.0]).t_p is None
    assert Gain.of([2.0, 3.0], [2.0, 3.0]).t_p == 1
    assert Gain.of([2.0, 3.0], [1.0, 2.0]).flip_p == 0.5


# ---- rows with features of their own ----


def change_plan(project: Path, folder: Path, plan: str) -> Path:
    copy = shutil.copytree(project, folder / "project")
    (copy / "experiments.yaml").write_text(plan)
    return copy


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(file): (file.stat().st_mtime_ns, file.stat().st_size) for file in folder.rglob("*")}


GEM = """
rows:
  plain: {train.augment_views: false}
  gem: {extract.outputs: [gem], extract.dtype: float32, train.augment_views: false}
  gem-wide:
    {extract.outputs: [gem], extract.dtype: float32, train.augment_views: false, partition.cell_m: 20.0}
  exact: {extract.dtype: float32, train.augment_views: false}
  quick: {extract.batch_size: 7, extract.shards: 2, train.augment_views: false}
"""


def test_other_features_go_to_shared_folders(project, tmp_path):
    folder = change_plan(project, tmp_path, GEM)
    usual = folder / "data/features/efficientnet_lite0-64"
    before = files_of(usual)
    assert call(folder, "experiments", "--seeds", "0", "--device", "cpu") == 0
    assert files_of(usual) == before
    own = sorted(folder.glob("data/features/efficientnet_lite0-64-*"))
    assert len(own) == 2
    recipes = [FeatureReader.open(store / "database.zarr").store.recipe for store in own]
    assert {(*recipe.outputs, recipe.dtype) for recipe in recipes} == {
        ("gem", "float32"),
        ("bilinear@-3", "bilinear@-2", "bilinear", "float32"),
    }
    assert all(content(folder)["rows"][row]["runs"] for row in ("gem", "gem-wide", "exact", "quick"))


def names(folder: Path, plan: str, **settings: object) -> list[str]:
    set_params(folder / "params.yaml", {name.replace("__", "."): value for name, value in settings.items()})
    (folder / "experiments.yaml").write_text(plan)
    rows = chosen_rows(folder, read_plan(folder), (), load_params(folder / "params.yaml"))
    return [row.features_name for row in rows]


def test_feature_folders_are_named_after_their_settings(tmp_path):
    folder = make_project(tmp_path, PLAN)
    plan = "rows: {a: {}, b: {extract.backbone: dinov2_vits14}, c: {extract.backbone: dinov2_vits14, %s}"
    plan += ", d: {extract.backbone: 'timm:resnet18.a1_in1k'}}"
    plain, other, changed, timm = names(folder, plan % "extract.precision: bfloat16")
    assert (plain, other) == ("efficientnet_lite0-64", "dinov2_vits14-64")
    assert timm == "timm-resnet18.a1_in1k-64"  # a colon is not valid in names on Windows, SMB and exFAT
    assert changed.startswith("dinov2_vits14-64-")
    # A project setting that the row does not name makes other features, in another folder.
    assert names(folder, plan % "extract.precision: bfloat16", extract__dtype="float32")[2] != changed


@dataclasses.dataclass(frozen=True)
class LaterConfig(ExtractConfig):
    unheard_of: int = 0


def test_which_settings_features_depend_on(tmp_path):
    extract = load_params(make_project(tmp_path, PLAN) / "params.yaml").extract
    values = dataclasses.asdict(extract)
    one, two = (LaterConfig(**values, unheard_of=value) for value in (1, 2))
    assert feature_settings(one) != feature_settings(two)
    without_effect = {"compile", "shards", "batch_size", "readers", "threads", "max_bad_fraction"}
    assert feature_settings(extract).keys() == values.keys() - without_effect
    assert without_effect < values.keys()


# ---- rows that fail ----

FAILING = """
rows:
  plain: {train.augment_views: false}
  crowded: {partition.min_images_per_class: 5000}
  crowded-too: {partition.min_images_per_class: 5000, train.scale: 50}
  odd: {extract.image_size: 65}
  longtail: {train.augment_views: true}
compare:
  - [longtail, plain]
  - [crowded, plain]
"""


def test_a_failing_row_does_not_stop_the_others(project, tmp_path, capsys):
    folder = change_plan(project, tmp_path, FAILING)
    assert call(folder, "experiments", "--seeds", "0-1") == 1
    rows = content(folder)["rows"]
    assert "no cell of 10 m keeps 5000 images" in rows["crowded"]["failed"]
    assert "extract.image_size is 65" in rows["odd"]["failed"]
    assert set(rows["longtail"]["runs"]) == {"0", "1"}
    assert len(content(folder)["gains"]) == 1
    printed, table = capsys.readouterr().out, (folder / "experiments" / "table.md").read_text()
    assert "crowded-too: failed: for the same reason as crowded" in printed
    for text in (printed, table):
        assert text.count("crowded, crowded-too: failed: no cell of 10 m") == 1
    assert "| odd | failed |" in table
    assert "| longtail | 2 |" in table


def fail(fault):
    def run(*_, **__):
        raise fault

    return run


def test_a_full_gpu_fails_a_row_and_a_bug_ends_the_run(project, tmp_path, monkeypatch):
    folder = change_plan(project, tmp_path, PLAN)
    arguments = ("experiments", "--seeds", "1-2", "--only", "plain", "--only", "wide")
    monkeypatch.setattr(
        "pipeline.runners.train.train", fail(torch.cuda.OutOfMemoryError("19 GiB\nare too many"))
    )
    assert call(folder, *arguments) == 1
    plain = content(folder)["rows"]["plain"]
    assert plain["failed"] == "19 GiB are too many"
    assert set(plain["runs"]) == {"1"}
    assert "| wide | 1, failed |" in (folder / "experiments" / "table.md").read_text()
    monkeypatch.setattr("pipeline.runners.train.train", fail(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["--project", str(folder), *arguments])


def test_a_failed_run_invalidates_earlier_numbers(project, tmp_path, monkeypatch):
    folder = change_plan(project, tmp_path, "rows: {plain: {train.augment_views: false, train.scale: 50}}")
    monkeypatch.setattr("pipeline.runners.train.train", fail(torch.cuda.OutOfMemoryError("full")))
    assert call(folder, "experiments", "--seeds", "0") == 1
    (folder / "experiments.yaml").write_text(PLAN)
    assert call(folder, "experiments", "--seeds", "0", "--only", "plain") == 1


def test_a_localiser_that_is_not_evaluated_is_named(tmp_path):
    folder = make_project(tmp_path, "rows: {a: {}, b: {eval.localisers: [classify]}}")
    rows = chosen_rows(folder, read_plan(folder), (), load_params(folder / "params.yaml"))
    require_localiser(rows, "classify")
    with pytest.raises(ConfigError, match="--localiser hybrid: b evaluates classify; add it"):
        require_localiser(rows, "hybrid")


# ---- several processes ----


def test_a_seed_held_by_another_process_is_skipped(project, tmp_path, capsys):
    folder = change_plan(project, tmp_path, "rows: {plain: {train.augment_views: false}, longtail: {}}")
    run = folder / "experiments" / "plain" / "seed-0"
    (run / "finished.json").unlink()
    with claimed(run, {0: range(1)}):
        assert call(folder, "experiments", "--seeds", "0-1") == 1
        printed = capsys.readouterr().out
        assert f"plain: held: seed 0 is being run by process {os.getpid()} on " in printed
        assert "run the same command again when that has ended" in printed
        assert set(content(folder)["rows"]["plain"]["runs"]) == {"1"}
        assert set(content(folder)["rows"]["longtail"]["runs"]) == {"0", "1"}
        assert not (run / "finished.json").exists()
    assert call(folder, "experiments", "--seeds", "0-1") == 0
    assert set(content(folder)["rows"]["plain"]["runs"]) == {"0", "1"}
    assert not list(folder.rglob("*.claims"))


def test_a_row_whose_features_are_held_is_skipped(project, tmp_path, capsys):
    folder = change_plan(
        project, tmp_path, "rows: {exact: {extract.dtype: float32, train.augment_views: false}}"
    )
    (row,) = chosen_rows(folder, read_plan(folder), (), load_params(folder / "params.yaml"))
    store = row.paths(0).features("database")
    store.parent.mkdir()
    with claimed(store, {0: range(1000)}):
        assert call(folder, "experiments", "--seeds", "0") == 1
    assert f"features of database are being extracted by process {os.getpid()} on " in capsys.readouterr().out
    assert "process" in content(folder)["rows"]["exact"]["held"]


def test_seeds_finished_by_another_process_are_shown(project, tmp_path, monkeypatch, capsys):
    folder = change_plan(project, tmp_path, "rows: {plain: {train.augment_views: false}}")
    note = folder / "experiments" / "plain" / "seed-0" / "finished.json"
    text = note.read_text()
    note.unlink()
    attempts = []

    def finished_elsewhere(run, shards):
        attempts.append(run)
        if not note.exists():
            note.write_text(text)
            raise StoreInUse("held by another process")
        return claimed(run, shards)

    monkeypatch.setattr("pipeline.experiments.run_row.claimed", finished_elsewhere)
    assert call(folder, "experiments", "--seeds", "0-1") == 0
    assert set(content(folder)["rows"]["plain"]["runs"]) == {"0", "1"}
    assert attempts == [note.parent]
    assert "seed 0: LR@1" in capsys.readouterr().out


# ---- tables ----


def test_costs_come_from_files_and_logs(project):
    stores = project / "data/features/efficientnet_lite0-64"
    costs = content(project)["rows"]["longtail"]["costs"]
    assert set(costs["features"]) == {"database", "queries", "views"}
    assert set(content(project)["rows"]["plain"]["costs"]["features"]) == {"database", "queries"}
    database = costs["features"]["database"]
    assert database["rows"] == 60
    assert database["bytes"] == total_size(stores / "database.zarr")
    lines = (stores / "database.timings.jsonl").read_text().splitlines()
    parts = ("compute_s", "read_wait_s", "write_wait_s")
    assert database["seconds"] == pytest.approx(
        sum(json.loads(line)[part] for line in lines for part in parts)
    )
    folders = [project / "experiments" / "longtail" / f"seed-{seed}" for seed in (0, 1)]
    assert costs["localiser_bytes"] == np.mean([total_size(folder / "localiser") for folder in folders])
    notes = [json.loads((folder / "finished.json").read_text())["metrics"]["seconds"] for folder in folders]
    assert costs["train_s"] == pytest.approx(np.mean([note["train"] for note in notes]))
    assert costs["eval_s"] == pytest.approx(np.mean([note["eval"] for note in notes]))
    table = (project / "experiments" / "table.md").read_text()
    assert f"| longtail | {sum(s['seconds'] for s in costs['features'].values()):,.1f} | " in table


def test_a_store_made_twice_costs_the_same_as_once(project, tmp_path):
    folder = shutil.copytree(project, tmp_path / "project")
    log = folder / "data/features/efficientnet_lite0-64/database.timings.jsonl"
    log.write_text(2 * log.read_text())
    assert call(folder, "experiments", "--seeds", "0-1", "--only", "plain") == 0
    once, twice = (content(place)["rows"]["plain"]["costs"]["features"] for place in (project, folder))
    assert twice["database"]["seconds"] == pytest.approx(once["database"]["seconds"])


def metrics_of(recall: float) -> dict[str, dict[str, float]]:
    return {"classify": {"LR@1": recall, "ms_per_query": 1.0}, "seconds": {"train": 1.0, "eval": 1.0}}


def test_gains_use_the_seeds_that_both_rows_have():
    outcomes = {
        "a": Outcome({2: metrics_of(30.0), 0: metrics_of(10.0), 1: metrics_of(50.0)}, HELD, "busy"),
        "b": Outcome({0: metrics_of(5.0), 2: metrics_of(20.0)}, FAILED, "broken"),
        "c": Outcome({}, FAILED, "broken"),
    }
    plan = Plan({"a": {}, "b": {}, "c": {}}, (("a", "b"), ("a", "c")))
    comparison = Comparison(outcomes, plan, "classify")
    ((pair, of),) = comparison.gains.items()
    assert pair == ("a", "b")
    assert of["LR@1"].spread == Spread.of([5.0, 10.0])
    assert [row[1] for row in tables(comparison)[0].rows] == ["3, held", "2, failed", "failed"]
    assert tables(comparison)[-1].rows[0][:3] == ["a - b", "LR@1", "+7.5 ± 3.5"]
    assert shortfalls(outcomes) == [
        "a: held: busy; run the same command again when that has ended",
        "b, c: failed: broken",
    ]


def test_tables_in_markdown():
    expected = "t:\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    assert Table("t", ["a", "b"], [["1", "2"]]).markdown() == expected
