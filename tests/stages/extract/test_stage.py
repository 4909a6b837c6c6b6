"""Extraction of small folders of real files: resume, reuse, faults and views."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cache.errors import RecipeMismatch, StoreError
from cache.integrity import check_chunk
from cache.ledger import Ledger
from cache.reader import FeatureReader
from cache.writer import ChunkWriter
from stages.devices import describe_device
from stages.errors import ConfigError, InputError, WeightsError
from stages.extract import shard as shard_module
from stages.extract.plan import RowSource
from stages.extract.shard import backbone_for
from stages.images.augment import AugmentConfig, augment
from stages.images.read import read_image
from stages.index.manifest import Manifest
from stages.models.backbones.backbone import Backbone, load_backbone
from stages.models.backbones.card import preprocess_for
from stages.partition.views import ViewPlan
from tests.support.tiny_photos import CONFIG, content, draw, listed, run

ROWS = 150
AUGMENT = AugmentConfig(
    side=48,
    crop_scale=(0.4, 1.0),
    crop_ratio=(0.75, 1.333),
    flip_p=0.0,
    perspective_p=0.5,
    perspective_shift=0.25,
    jitter_p=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.05,
    grey_p=0.2,
    blur_p=0.3,
    blur_sigma=(0.5, 2.5),
    erase_p=0.3,
    erase_area=(0.02, 0.2),
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for number in range(ROWS):
        draw(root / f"{number:04d}.jpg", number)
    return root


@pytest.fixture
def manifest(tmp_path, photos):
    return listed(tmp_path / "database.parquet", photos, [f"{n:04d}.jpg" for n in range(ROWS)])


@pytest.fixture
def passed(monkeypatch):
    """Number of images of every pass through the backbone."""
    counts = []
    forward = Backbone.forward

    def counted(self, pixels):
        counts.append(len(pixels))
        return forward(self, pixels)

    monkeypatch.setattr(Backbone, "forward", counted)
    return counts


def test_every_row_has_the_features_of_its_image(manifest, tmp_path, photos):
    store = tmp_path / "database.zarr"
    seen, lines = [], []
    result = run(
        manifest, store, progress=lambda done, total: seen.append((done, total)), report=lines.append
    )
    assert (result.rows, result.done, result.computed, result.reused) == (ROWS, 0, ROWS, 0)
    assert (result.bad, result.missing_rows) == ((), 0)
    assert result.device == describe_device("cpu")
    assert lines == [f"extract database: efficientnet_lite0 on {result.device}"]
    assert result.images_per_s > 0
    assert ("computed", ROWS) in result.facts()
    assert min(result.read_s, result.compute_s, result.write_s) > 0
    assert seen[-1] == (ROWS, ROWS)
    reader = FeatureReader.open(store)
    reader.require_complete()
    assert reader.outputs == {"avg": 1280, "gem": 1280}
    assert (reader.recipe.weights, reader.recipe.backbone) == ("pretrained", "efficientnet_lite0")
    backbone = load_backbone(
        "efficientnet_lite0", weights="pretrained", image_size=32, outputs=CONFIG.outputs
    )
    for row in (0, 63, 64, 149):
        pixels = backbone.preprocess(read_image(photos / f"{row:04d}.jpg"))
        alone = backbone(torch.from_numpy(pixels[None]))
        expected = torch.cat([alone["avg"], alone["gem"]], dim=1).numpy()
        np.testing.assert_allclose(reader.read(row, row + 1), expected, atol=2e-3, rtol=2e-3)


def test_a_second_run_computes_and_loads_nothing(manifest, tmp_path, monkeypatch):
    run(manifest, tmp_path / "database.zarr")
    before = content(tmp_path / "database.zarr")
    monkeypatch.setattr("stages.extract.shard.load_backbone", None)
    result = run(manifest, tmp_path / "database.zarr", report=pytest.fail)
    assert (result.done, result.computed, result.images_per_s, result.device) == (ROWS, 0, 0.0, "")
    assert content(tmp_path / "database.zarr") == before


def test_shards_one_by_one_equal_one_run(manifest, tmp_path):
    run(manifest, tmp_path / "a" / "database.zarr")
    config = replace(CONFIG, shards=7)
    for shard in (6, 2, 3, 0, 1, 4, 5):
        result = run(manifest, tmp_path / "b" / "database.zarr", config, [shard])
    assert result.missing_rows == 0
    assert content(tmp_path / "a/database.zarr") == content(tmp_path / "b/database.zarr")
    with pytest.raises(StoreError, match="shard 7 does not exist: expected 0 to 6"):
        run(manifest, tmp_path / "b" / "database.zarr", config, [7])


def test_shard_orders_can_be_sent_to_other_processes(manifest, tmp_path):
    def elsewhere(function, orders):
        sent = pickle.loads(pickle.dumps((function, list(orders))))
        return [pickle.loads(pickle.dumps(sent[0](order))) for order in reversed(sent[1])]

    result = run(manifest, tmp_path / "a" / "database.zarr", mapper=elsewhere)
    assert result.computed == ROWS
    run(manifest, tmp_path / "b" / "database.zarr")
    assert content(tmp_path / "a/database.zarr") == content(tmp_path / "b/database.zarr")


def test_a_resumed_run_equals_an_uninterrupted_one(manifest, tmp_path, monkeypatch, passed):
    forward = Backbone.forward

    def interrupted(self, pixels):
        if sum(passed) >= 80:
            raise KeyboardInterrupt
        return forward(self, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(manifest, tmp_path / "a" / "database.zarr")
    assert FeatureReader.open(tmp_path / "a/database.zarr").missing_rows == ROWS - 64
    passed.clear()
    result = run(manifest, tmp_path / "a" / "database.zarr")
    assert (result.done, result.computed, sum(passed)) == (64, ROWS - 64, ROWS - 64)
    run(manifest, tmp_path / "b" / "database.zarr")
    assert content(tmp_path / "a/database.zarr") == content(tmp_path / "b/database.zarr")


def killed_run(manifest_path, store):
    """Extract until killed between writing the second chunk's arrays and its ledger entry."""
    original = Ledger.mark

    def kill_at_chunk_1(self, chunk, *rest):
        if chunk == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, chunk, *rest)

    Ledger.mark = kill_at_chunk_1
    run(Manifest.open(Path(manifest_path)), Path(store))


def test_a_run_resumed_after_a_kill_equals_one_without(manifest, tmp_path):
    code = "import sys; import tests.stages.extract.test_stage as t; t.killed_run(*sys.argv[1:])"
    store = tmp_path / "a" / "database.zarr"
    command = [sys.executable, "-c", code, str(manifest.path), str(store)]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], check=False)
    assert done.returncode == -signal.SIGKILL
    assert FeatureReader.open(store).store.ledger.done_chunks().tolist() == [0]
    (store / "avg/c/2").mkdir(exist_ok=True)
    (store / "avg/c/2/0.0123.partial").write_bytes(b"half a chunk")
    assert run(manifest, store).computed == ROWS - 64
    run(manifest, tmp_path / "b" / "database.zarr")
    assert content(store) == content(tmp_path / "b/database.zarr")


def test_another_recipe_is_rejected_without_replace(manifest, tmp_path):
    store = tmp_path / "database.zarr"
    run(manifest, store)
    other = replace(CONFIG, image_size=64)
    with pytest.raises(RecipeMismatch, match=r"image_size: 64 here, 32 in the store.*--replace"):
        run(manifest, store, other)
    result = run(manifest, store, other, replace=True)
    assert result.computed == ROWS
    assert FeatureReader.open(store).recipe.image_size == 64


@pytest.mark.parametrize("keep", [False, True])
def test_replace_keeps_the_store_if_the_backbone_cannot_be_loaded(manifest, tmp_path, keep):
    store, weights = tmp_path / "database.zarr", tmp_path / "weights.pth"
    run(manifest, store)
    before = content(store)
    weights.write_bytes(b"half a download")  # its hash makes a recipe; only loading shows the fault
    with pytest.raises(WeightsError, match=r"weights\.pth cannot be read as a checkpoint"):
        run(manifest, store, replace(CONFIG, weights=str(weights)), replace=True, keep=keep)
    assert content(store) == before
    assert run(manifest, store).computed == 0


def test_keep_restores_the_features_of_a_former_recipe(manifest, tmp_path):
    store = tmp_path / "database.zarr"
    run(manifest, store)
    before = content(store)
    other = replace(CONFIG, image_size=64)
    assert run(manifest, store, other, keep=True).computed == ROWS
    assert FeatureReader.open(store).recipe.image_size == 64
    assert run(manifest, store, keep=True).computed == 0
    assert content(store) == before
    assert run(manifest, store, other, keep=True).computed == 0


def test_rows_are_reused_after_a_change_of_the_manifest(manifest, photos, tmp_path, passed):
    store = tmp_path / "database.zarr"
    run(manifest, store)
    before = FeatureReader.open(store).read(0, ROWS)
    for number in (3, 77):
        draw(photos / f"new{number}.jpg", 1000 + number)
    kept = [f"{n:04d}.jpg" for n in reversed(range(ROWS)) if n != 5]
    changed = listed(tmp_path / "changed.parquet", photos, [*kept[:90], "new3.jpg", "new77.jpg", *kept[90:]])
    passed.clear()
    with pytest.raises(StoreError):  # an interrupted run leaves the old store for the next one
        run(changed, store, mapper=lambda function, orders: (_ for _ in ()).throw(StoreError("stop")))
    assert store.with_name("database.zarr.old").is_dir()
    first = run(changed, store, shards=[0])
    assert (first.computed, first.reused, sum(passed)) == (0, 64, 0)
    assert store.with_name("database.zarr.old").is_dir()
    rest = run(changed, store)
    assert (rest.done, rest.computed, rest.reused, sum(passed)) == (64, 2, ROWS - 1 - 64, 2)
    assert not store.with_name("database.zarr.old").exists()
    reader = FeatureReader.open(store)
    reader.require_complete()
    order = [int(key[:4]) for key in kept]
    np.testing.assert_array_equal(reader.read(0, 90), before[order[:90]])
    np.testing.assert_array_equal(reader.read(92, 151), before[order[90:]])
    assert not any(check_chunk(reader.store, chunk) for chunk in range(reader.store.spec.chunks))


@pytest.fixture
def broken(tmp_path, photos):
    """A copy of the photos with five faulty files."""
    root = tmp_path / "broken"
    shutil.copytree(photos, root)
    jpeg = (root / "0010.jpg").read_bytes()
    (root / "0010.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (root / "0011.jpg").write_bytes(b"")
    (root / "0070.jpg").write_text("a letter")
    (root / "0149.jpg").unlink()
    Image.open(root / "0012.jpg").convert("CMYK").save(root / "0012.jpg")
    return listed(tmp_path / "broken.parquet", root, [f"{n:04d}.jpg" for n in range(ROWS)])


def test_bad_images_are_listed_and_affect_no_other_row(manifest, broken, tmp_path):
    run(manifest, tmp_path / "a" / "database.zarr")
    result = run(broken, tmp_path / "b" / "database.zarr")
    assert [(bad.row, bad.key, bad.reason) for bad in result.bad] == [
        (10, "0010.jpg", "truncated file"),
        (11, "0011.jpg", "empty file"),
        (70, "0070.jpg", "not an image of a known format"),
        (149, "0149.jpg", "no such file"),
    ]
    assert result.computed == ROWS - 4
    assert ("bad: 0011.jpg", "empty file") in result.facts()
    intact, damaged = (FeatureReader.open(tmp_path / name / "database.zarr") for name in "ab")
    damaged.require_complete()
    assert np.flatnonzero(~damaged.valid).tolist() == [10, 11, 70, 149]
    assert np.isnan(damaged.read(10, 12)).all()
    good = damaged.valid.copy()
    good[12] = False  # its colours changed with CMYK
    np.testing.assert_array_equal(damaged.read(0, ROWS)[good], intact.read(0, ROWS)[good])
    assert np.isfinite(damaged.read(12, 13)).all()


def test_fixed_images_are_computed_by_the_next_run(broken, photos, tmp_path, passed):
    store = tmp_path / "database.zarr"
    run(broken, store)
    before = content(store)
    passed.clear()
    again = run(broken, store)
    assert (again.done, again.computed, len(again.bad), passed) == (ROWS - 4, 0, 4, [])
    assert content(store) == before
    shutil.copy(photos / "0070.jpg", broken.root / "0070.jpg")
    fixed = run(broken, store)
    assert (fixed.done, fixed.computed, [bad.row for bad in fixed.bad]) == (ROWS - 4, 1, [10, 11, 149])
    reader = FeatureReader.open(store)
    assert np.isfinite(reader.read(70, 71)).all()
    assert not any(check_chunk(reader.store, chunk) for chunk in range(3))


def test_too_many_bad_images_stop_but_keep_finished_chunks(broken, tmp_path):
    store = tmp_path / "database.zarr"
    strict = replace(CONFIG, max_bad_fraction=0.02)
    with pytest.raises(
        InputError, match=r"4 images or more of the database are bad \(0010.jpg: truncated file"
    ):
        run(broken, store, strict)
    assert FeatureReader.open(store).store.ledger.done(0)
    assert run(broken, store).done >= 64


def test_features_beyond_float16_are_bad_rows(manifest, tmp_path, monkeypatch):
    forward = Backbone.forward

    def overflowing(self, pixels):
        pooled = {name: values.clone() for name, values in forward(self, pixels).items()}
        pooled["gem"][0, 0] = 1e6
        return pooled

    monkeypatch.setattr(Backbone, "forward", overflowing)
    result = run(manifest, tmp_path / "database.zarr", replace(CONFIG, batch_size=64))
    assert [(bad.row, bad.reason) for bad in result.bad] == [
        (row, "feature gem is not finite as float16") for row in (0, 64, 128)
    ]
    assert np.isnan(FeatureReader.open(tmp_path / "database.zarr").read(64, 65)).all()


def test_fully_reused_chunks_are_written_one_by_one(manifest, photos, tmp_path, monkeypatch):
    store, config = tmp_path / "database.zarr", replace(CONFIG, shards=1)
    run(manifest, store, config)
    kept = [f"{n:04d}.jpg" for n in reversed(range(ROWS - 2))]
    changed = listed(tmp_path / "changed.parquet", photos, kept)
    start_chunk, written = shard_module.start_chunk, []

    def noted(order, store, number):
        written.append(store.ledger.listed())
        return start_chunk(order, store, number)

    monkeypatch.setattr(shard_module, "start_chunk", noted)
    assert run(changed, store, config).reused == ROWS - 2
    assert len(written) == 3
    assert 0 in written[2]  # a shard is not held in memory until its end


def test_views_are_augmented_images(manifest, photos, tmp_path, passed):
    store = tmp_path / "views.zarr"
    plan = ViewPlan.of_counts(np.bincount([0, 0, 7, 149, 149, 149], minlength=ROWS))
    options = {"views": plan, "augment": AUGMENT, "seed": 3}
    result = run(manifest, store, **options)
    assert (result.rows, result.computed) == (6, 6)
    reader = FeatureReader.open(store)
    assert reader.recipe.augment["seed"] == 3
    backbone = load_backbone(
        "efficientnet_lite0", weights="pretrained", image_size=32, outputs=CONFIG.outputs
    )
    for row, (image, view) in enumerate([(0, 0), (0, 1), (7, 0), (149, 0), (149, 1), (149, 2)]):
        key = f"{image:04d}.jpg"
        picture = augment(read_image(photos / key), key=key, view=view, seed=3, config=AUGMENT)
        alone = backbone(torch.from_numpy(backbone.preprocess(picture)[None]))["avg"].numpy()
        np.testing.assert_allclose(reader.read(row, row + 1, ["avg"]), alone, atol=2e-3, rtol=2e-3)
    longer = ViewPlan.of_counts(np.bincount([0, 0, 0, 7, 8, 149, 149], minlength=ROWS))
    passed.clear()
    result = run(manifest, store, **{**options, "views": longer})
    assert (result.computed, result.reused, sum(passed)) == (2, 5, 2)
    with pytest.raises(RecipeMismatch, match=r"augment\.seed: 4 here, 3 in the store"):
        run(manifest, store, **{**options, "seed": 4})


def test_an_empty_view_plan_gives_an_empty_store(manifest, tmp_path):
    plan = ViewPlan.of_counts(np.zeros(ROWS, np.int64))
    result = run(manifest, tmp_path / "views.zarr", views=plan, augment=AUGMENT)
    assert (result.rows, result.computed) == (0, 0)
    FeatureReader.open(tmp_path / "views.zarr").require_complete()


def test_views_of_another_manifest_are_rejected(manifest, tmp_path):
    plan = ViewPlan.of_columns(np.array([ROWS]), np.array([0], np.int16))
    with pytest.raises(InputError, match="the view plan names image 150"):
        run(manifest, tmp_path / "views.zarr", views=plan, augment=AUGMENT)
    for views, augment_config in ((plan, None), (None, AUGMENT)):
        with pytest.raises(ValueError, match="views and augment go together"):
            RowSource(manifest, views, augment_config)


def test_settings_out_of_range_are_named_in_the_error(manifest, tmp_path):
    for name, value in {
        "backbone": "resnet50",
        "batch_size": 0,
        "readers": 0,
        "shards": 0,
        "max_bad_fraction": 1.5,
    }.items():
        with pytest.raises(ConfigError, match=f"extract.{name} is"):
            replace(CONFIG, **{name: value})
    with pytest.raises(ConfigError, match="device 'warp' cannot be used"):
        run(manifest, tmp_path / "database.zarr", device="warp")


def test_scaled_features_are_another_recipe(tmp_path):
    scene = Image.effect_noise((96, 80), 60).resize((192, 160)).convert("RGB")
    scene.save(tmp_path / "a.jpg", quality=90)
    manifest, store = listed(tmp_path / "list.parquet", tmp_path, ["a.jpg"]), tmp_path / "database.zarr"
    config = replace(CONFIG, decode="scaled")
    run(manifest, store, config)
    with Image.open(tmp_path / "a.jpg") as image:
        image.draft("RGB", (37, 37))  # 32 / 224 * 256: the shorter side is resized to it
        assert image.size == (48, 40)
        preprocess = preprocess_for(CONFIG.backbone, CONFIG.image_size)
        pixels = torch.from_numpy(preprocess(image))[None]
    expected = load_backbone(CONFIG.backbone, weights="pretrained", image_size=32, outputs=("avg",))(pixels)
    stored = FeatureReader.open(store).read(0, 1, ["avg"])
    assert np.array_equal(stored, expected["avg"].numpy().astype(np.float16))
    with pytest.raises(RecipeMismatch, match="decode_at_least: 74 here, 37 in the store"):
        run(manifest, store)
    with pytest.raises(ConfigError, match="nvJPEG decodes at full size only"):
        replace(config, decoder="nvjpeg")


@pytest.mark.parametrize("cut", ["none", 4])
def test_an_empty_list_of_outputs_is_rejected(cut):
    with pytest.raises(ConfigError, match=r"extract\.outputs is empty: efficientnet_lite0 offers avg, gem"):
        replace(CONFIG, outputs=(), cut=cut)


def test_a_worker_with_other_weights_is_rejected():
    with pytest.raises(WeightsError, match="copy the same file to every worker"):
        backbone_for(CONFIG, "cpu", "0" * 64)


def test_chunks_are_written_in_order(manifest, tmp_path, monkeypatch):
    written = []
    write = ChunkWriter.write

    def noted(self, chunk, *arguments, **options):
        written.append(chunk)
        write(self, chunk, *arguments, **options)

    monkeypatch.setattr(ChunkWriter, "write", noted)
    run(manifest, tmp_path / "database.zarr")
    assert written == [0, 1, 2]
    lines = (tmp_path / "database.timings.jsonl").read_text().splitlines()
    assert len(lines) == 3
