"""Doctor, verify and status: problems, damage and progress of a project."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch

from cache.recipe import Recipe
from cache.store import open_store
from cache.timings import log_timing
from pipeline import console
from pipeline.checks import doctor, status
from pipeline.checks.weights import compare_features
from pipeline.cli import main
from pipeline.project.init import set_params, template
from pipeline.project.params import load_params
from pipeline.project.paths import Paths
from pipeline.runners.extract import storage_line
from stages.models.backbones.create import random_model
from stages.partition.views import ViewPlan
from tests.support.tiny_photos import CONFIG, draw, listed, run

ROWS = 100
SETTINGS = {
    "extract.backbone": "efficientnet_lite0",
    "extract.image_size": 32,
    "extract.outputs": ["avg", "gem"],
    "extract.shards": 2,
    "extract.batch_size": 20,
    "extract.threads": 1,
    "data.database": "photos",
}
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project whose database is indexed and extracted."""
    folder = tmp_path_factory.mktemp("finished")
    keys = [f"{number:04d}.jpg" for number in range(ROWS)]
    for number, key in enumerate(keys):
        draw(folder / "photos" / key, number)
    (folder / "photos" / "0007.jpg").write_text("a letter")
    (folder / "params.yaml").write_text(template("params.yaml").read_text())
    set_params(folder / "params.yaml", SETTINGS)
    manifest = folder / "data" / "index" / "database.parquet"
    manifest.parent.mkdir(parents=True)
    run(listed(manifest, folder / "photos", keys), features(folder), CONFIG)
    return folder


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project that a test may change."""
    return shutil.copytree(finished, tmp_path / "project")


def features(project):
    return Paths(project, "efficientnet_lite0-32").features("database")


def call(capsys, project, *arguments):
    """Exit code, and what was printed on one line."""
    with pytest.raises(SystemExit) as stopped:
        main(("--project", str(project), *arguments))
    printed = capsys.readouterr()
    return stopped.value.code, " ".join((printed.out + printed.err).split())


def examine(project, **options):
    params = load_params(project / "params.yaml")
    options = {"device": "cpu", "scheduler": None, **options}
    findings = list(doctor.examine(params, Paths(project, "efficientnet_lite0-32"), **options))
    return {finding.subject: finding for finding in findings}


def flip(path):
    damaged = bytearray(path.read_bytes())
    damaged[10] ^= 1
    path.write_bytes(damaged)


def test_a_sound_project_has_no_problem(project, capsys):
    code, printed = call(capsys, project, "doctor", "--device", "cpu")
    assert code == 0
    assert "blocks" not in printed
    assert "features database 100 rows, complete" in printed
    findings = examine(project)
    assert findings["index queries"].remedy == "run `pipeline index`"
    assert findings["partition"].remedy == "run `pipeline partition`"
    assert findings["weights"].mark == findings["index database"].mark == findings["disk"].mark == "ok"
    assert "1 of" in findings["device"].text


def test_missing_images_block_and_name_their_folder(project, capsys):
    keys = [f"{number:04d}.jpg" for number in range(ROWS)]
    listed(project / "data/index/database.parquet", project / "photos", keys)
    shutil.rmtree(project / "photos")
    code, printed = call(capsys, project, "doctor", "--device", "cpu")
    assert code == 1
    assert "sampled images do not exist" in printed
    assert f"mount {project / 'photos'}" in examine(project)["index database"].remedy


def test_a_source_that_does_not_exist_blocks(project):
    set_params(project / "params.yaml", {"data.queries": "nowhere"})
    finding = examine(project)["index queries"]
    assert (finding.blocks, finding.remedy) == (True, "set data.queries in params.yaml")


def test_other_settings_block_and_other_rows_are_reused(project):
    keys = [f"{number:04d}.jpg" for number in range(ROWS)]
    listed(project / "data/index/database.parquet", project / "photos", keys[::-1])
    finding = examine(project)["features database"]
    assert (finding.mark, finding.remedy) == (
        "note",
        "run `pipeline extract --split database`, which reuses the features of unchanged rows",
    )
    set_params(project / "params.yaml", {"extract.precision": "bfloat16"})
    finding = examine(project)["features database"]
    assert finding.blocks
    assert "precision: bfloat16 here, float32 in the store" in finding.text
    assert finding.remedy.endswith("run `pipeline extract --split database --replace`")


def test_unavailable_weights_block_with_a_remedy(project):
    set_params(project / "params.yaml", {"extract.weights": "nowhere.pth"})
    finding = examine(project)["weights"]
    assert finding.blocks
    assert "nowhere.pth" in finding.text
    assert finding.remedy.startswith("expected 'pretrained'")


def test_a_full_disk_blocks(project, monkeypatch):
    store = features(project)
    shutil.rmtree(store / "avg" / "c")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(1, 1, 1000))
    finding = examine(project)["disk"]
    assert finding.blocks
    assert "1.0 kB free" in finding.text


def test_the_disk_space_needed_is_the_space_taken(project):
    store = features(project)
    recipe = open_store(store).recipe
    chunk_files = sum(path.stat().st_size for path in store.rglob("c/*/0"))
    assert doctor.needed_bytes(ROWS, recipe) == chunk_files + 8 * ROWS + 2 * 4096
    sf_xl = Recipe(**{**recipe.to_dict(), "outputs": {"cls": 384, "avg": 384}})
    assert doctor.needed_bytes(41_200_000, sf_xl) == pytest.approx(63.6e9, rel=0.01)


def test_time_and_space_of_a_planned_extraction(project, capsys):
    code, shown = call(capsys, project, "doctor", "--rate", "9400", "--images", "75900000")
    assert code == 0
    assert "75,900,000 images and views at 9,400 a second take 2 h 15 min" in shown
    assert "features take 389.3 GB" in shown  # 2,560 float16 numbers each, and the row ids
    _, shown = call(capsys, project, "doctor", "--rate", "0.5")
    assert "100 images and views at 0.5 a second take 3 min" in shown


def test_the_tensors_at_a_cut_count_as_disk_space(project, capsys):
    set_params(project / "params.yaml", {"extract.cut": 4, "extract.image_size": 64})
    tokens = 4 * 4 * 80
    params, paths = load_params(project / "params.yaml"), Paths(project, "efficientnet_lite0-64")
    row_bytes = 2 * (2 * 1280 + tokens)
    needed = 2 * 64 * row_bytes + 8 * ROWS + 2 * 4096
    disk = next(f for f in doctor.examine(params, paths, device="cpu", scheduler=None) if f.subject == "disk")
    assert disk.text.startswith(f"features take {console.size(needed)}, of which 0 B exist")
    code, printed = call(capsys, project, "extract", "--split", "database", "--device", "cpu")
    folder = paths.features("database").parent
    line = f"database: 100 images x 7.7 kB = 768.0 kB in {folder}"
    assert code == 0
    assert printed.index(" ".join(line.split())) < printed.index("computed")
    store = open_store(paths.features("database"))
    assert store.spec.outputs == {"avg": 1280, "gem": 1280, "cut4": tokens}
    chunk_files = sum(path.stat().st_size for path in store.path.rglob("c/*/0"))
    assert doctor.needed_bytes(ROWS, store.recipe) == chunk_files + 8 * ROWS + 2 * 4096


def test_views_are_counted_by_their_plan(project):
    ViewPlan.of_counts(np.array([2, 0, 1])).save(project / "data" / "partition" / "views.parquet")
    params, paths = load_params(project / "params.yaml"), Paths(project, "efficientnet_lite0-32")
    line = storage_line(params, paths, "views")
    assert line == f"views: 3 views x 5.1 kB = 15.4 kB in {paths.features('views').parent}"


def test_the_scheduler_is_checked(project, monkeypatch):
    monkeypatch.setattr("pipeline.runners.dask_cluster._CONNECT", "300ms")
    finding = examine(project, scheduler="tcp://127.0.0.1:9")["cluster"]
    assert (finding.blocks, finding.remedy) == (True, "start one with `dask scheduler`")
    assert examine(project, scheduler="lokal:4")["cluster"].blocks
    assert examine(project, scheduler="local:1")["cluster"].mark == "ok"
    assert examine(project, scheduler="local:9999")["cluster"].mark == "note"


def test_verify_finds_damage_and_repair_fixes_it(project, capsys):
    code, printed = call(capsys, project, "verify")
    assert (code, "sound" in printed) == (0, True)
    before = (features(project) / "gem/c/1/0").read_bytes()
    flip(features(project) / "gem/c/1/0")
    code, printed = call(capsys, project, "verify", "--split", "database")
    assert code == 1
    assert "64-99" in printed
    assert "gem" in printed
    assert "bytes changed since they were written" in printed
    assert "run `pipeline extract --split database --repair`" in printed
    code, printed = call(capsys, project, "extract", "--split", "database", "--repair", "--device", "cpu")
    assert code == 0
    assert "damaged chunks done again" in printed
    assert (features(project) / "gem/c/1/0").read_bytes() == before
    assert call(capsys, project, "verify")[0] == 0


def test_verify_finds_missing_chunks_and_stores(project, capsys):
    (features(project) / "ledger/000001.json").unlink()
    code, printed = call(capsys, project, "verify")
    assert code == 1
    assert "database: run `pipeline extract --split database`" in printed
    code, printed = call(capsys, project, "verify", "--split", "views")
    assert code == 1
    assert "no feature store at" in printed


def test_status_fits_80_columns_and_shows_waits(project, capsys, monkeypatch):
    store = features(project)
    store.with_name("database.timings.jsonl").unlink()
    waits = {"read_s": 30, "compute_s": 60, "write_s": 1, "read_wait_s": 40, "write_wait_s": 0}
    log_timing(store, {"images": 41_200_000, **waits})
    monkeypatch.setattr(console.out, "width", 80)
    rows = {row[0]: row for row in status.artifacts(Paths(project, store.parent.name))}
    row = rows["features database"]
    assert row[1:4] == (ROWS, "100 %", 1)
    monkeypatch.setattr(status, "artifacts", lambda paths: [("features database", 41_200_000, *row[2:])])
    with pytest.raises(SystemExit):
        main(("--project", str(project), "status"))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("features database" in line and "41,200,000" in line and "412,000" in line for line in lines)
    assert any("waited for images 40%, for the disk 0%" in line for line in lines)


def test_status_lists_unreadable_images(project, capsys):
    code, printed = call(capsys, project, "status", "--bad")
    assert code == 0
    assert "0007.jpg" in printed
    assert "not an image" in printed


def test_features_are_compared_with_timm_and_the_authors(project, capsys, tmp_path, monkeypatch):
    text = call(capsys, project, "doctor", "--weights")[1]
    assert "cosine with efficientnet-lite0-57934424.pth in timm: avg 1.0000" in text
    model = random_model("dinov2_vits14", 28)
    (tmp_path / "checkpoints").mkdir()
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.fc2.weight.mul_(-3)
    torch.save(model.state_dict(), tmp_path / "checkpoints" / "dinov2_vits14_pretrain.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    config = replace(
        CONFIG, backbone="dinov2_vits14", image_size=28, outputs="default", weights=str(tmp_path / "mine.pth")
    )
    timm, authors = compare_features(config)
    assert timm.mark == "ok"
    assert "mine.pth in timm: cls 1.0000" in timm.text
    assert authors.mark == "note"
    assert "dinov2_vits14_pretrain.pth of the authors: cls " in authors.text
    (random,) = compare_features(replace(config, weights="random"))
    assert "random weights has no reference" in random.text


def test_each_of_several_query_sets_must_exist(project):
    set_params(project / "params.yaml", {"data.queries": ["photos", "nowhere"]})
    finding = examine(project)["index queries"]
    assert finding.blocks
    assert finding.text.endswith("nowhere does not exist")
