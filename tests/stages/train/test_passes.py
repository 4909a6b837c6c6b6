"""What a run trains on, holds out, carries from pass to pass and resumes: each stated as a number."""

from __future__ import annotations

import json
import shutil
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from cache.errors import RecipeMismatch, StoreError
from cache.reader import FeatureReader
from stages.models.localiser.localiser import Localiser
from stages.train.data.load import load_rows
from stages.train.exemplars import fit_familiarity_threshold
from stages.train.loop.checkpoint import Checkpoints
from stages.train.loop.distributed import Ranks
from stages.train.prepare import open_files, open_source, split_rows
from tests.support.training_city import CONFIG, FUSION, OUTPUTS, RECIPE, VALIDATION, build_city, write_store

CPU = torch.device("cpu")
EVERY = replace(CONFIG, exemplars=1000)
"""All photos trained on become exemplars, so that the centre of exemplars is their mean."""


@pytest.fixture
def city(tmp_path):
    return build_city(tmp_path / "city", bad=[3, 70])


def validated(config=EVERY, **changes):
    steps = {"initial_weights": "data", "max_steps": 12, "checkpoint_s": 0.0}
    return replace(
        config, **steps, validation=replace(VALIDATION, share=0.2, times=6, patience=30, **changes)
    )


def meta(folder):
    return json.loads((folder / "meta.json").read_text())


def centre(folder):
    return load_file(folder / "localiser.safetensors")["exemplars.centre"].numpy()


def stop_at(count):
    """Return a progress bar that interrupts the run at its count-th call."""
    calls = []

    def bar(done, total):
        calls.append(done)
        if len(calls) == count:
            raise KeyboardInterrupt

    return bar


def written_again(city, recipe):
    """Write the city's stores once more, with features of the same values."""
    for split, augment in (("database", None), ("views", {"seed": 0})):
        path = city.folder / f"{split}.zarr"
        reader = FeatureReader.open(path)
        features, bad = reader.read(0, reader.rows, tuple(OUTPUTS)), np.flatnonzero(~reader.valid).tolist()
        shutil.rmtree(path)
        names = view_names(city) if augment else None
        write_store(path, features, replace(recipe, augment=augment), bad=bad, names=names)


def view_names(city):
    return [f"{row}.jpg#{view}" for row, view in zip(city.plan.row, city.plan.view, strict=True)]


def test_calibration_sees_exemplars_of_trained_photos_only(city):
    config = validated()
    files = open_files(city.train_inputs(config))
    rows, holdout = split_rows(config, files, (0, 1, 2, 3), 0)
    features = files.reader.read(0, files.reader.rows).astype(np.float64)
    result = city.train(config, fusion=FUSION)
    assert result.held_out == holdout.sum() > 50
    assert not (rows & holdout).any()
    np.testing.assert_allclose(centre(city.folder / "localiser"), features[rows].mean(axis=0), rtol=1e-4)
    city.train(validated(refit=True), fusion=FUSION)
    everything = features[rows | holdout].mean(axis=0)
    np.testing.assert_allclose(centre(city.folder / "localiser"), everything, rtol=1e-4)


def test_the_second_pass_keeps_the_calibration_of_the_first(city):
    first = city.train(validated(), fusion=FUSION, output=city.folder / "first")
    both = city.train(validated(refit=True), fusion=FUSION, output=city.folder / "both")
    calibration = meta(city.folder / "first")["calibration"]
    assert calibration["images"] == first.held_out == both.held_out > 50
    assert meta(city.folder / "both")["calibration"] == calibration
    assert both.samples == first.samples + sum(both.drawn.values())


def test_a_resumed_second_pass_keeps_the_calibration_too(city):
    config = validated(refit=True)
    undisturbed = city.train(config, fusion=FUSION, output=city.folder / "undisturbed")
    resumed = {"fusion": FUSION, "checkpoints": city.folder / "checkpoints"}
    with pytest.raises(KeyboardInterrupt):
        city.train(config, **resumed, progress=stop_at(6 + 3))  # six lines of the first pass, then three
    assert [path.name[:5] for path in resumed["checkpoints"].iterdir()] == ["refit"]
    again = city.train(config, **resumed)
    assert 0 < again.resumed_step < undisturbed.steps
    assert meta(city.folder / "undisturbed")["calibration"] is not None
    assert meta(city.folder / "localiser") == meta(city.folder / "undisturbed")


def test_the_second_pass_takes_as_many_steps_as_the_first_kept(city):
    # Rates so high that every step spoils what the class means knew, so the first weights are kept.
    wild = {"learning_rate_projection": 30.0, "learning_rate_heads": 30.0, "sampling": "image"}
    first = city.train(replace(validated(), **wild))
    both = city.train(replace(validated(refit=True), **wild))
    assert (first.kept_step, first.steps) == (0, 12)
    assert (both.kept_step, both.steps, both.samples) == (0, 0, first.samples)


def test_a_resumed_run_counts_only_its_own_samples_as_speed(city):
    config = replace(CONFIG, augment_views=False, max_steps=50, checkpoint_s=0.0)
    folder = city.folder / "checkpoints"
    with pytest.raises(KeyboardInterrupt):
        city.train(config, checkpoints=folder, progress=stop_at(20))
    result = city.train(config, checkpoints=folder)
    assert (result.resumed_step, result.steps, result.samples) == (20, 50, 50 * 32)
    assert result.samples_per_s * result.seconds == pytest.approx(30 * 32)


@pytest.mark.parametrize(
    ("change", "resumed"), [({}, 10), ({"weights_id": "1" * 64}, 0), ({"precision": "float16"}, 0)]
)
def test_a_checkpoint_serves_features_of_one_recipe(city, change, resumed):
    config, folder = replace(CONFIG, max_steps=30, checkpoint_s=0.0), city.folder / "checkpoints"
    written_again(city, RECIPE)
    with pytest.raises(KeyboardInterrupt):
        city.train(config, checkpoints=folder, progress=stop_at(10))
    written_again(city, replace(RECIPE, **change))
    assert city.train(config, checkpoints=folder).resumed_step == resumed


def test_the_newest_of_several_checkpoints_is_resumed(tmp_path):
    """A crash between the rename of a checkpoint and the deletion of the one before leaves both."""
    checkpoints = Checkpoints(tmp_path / "run", "a", 0.0, Ranks())
    checkpoints.save({"x": torch.ones(2)}, {"pass": "first", "step": 9})
    shutil.copytree(tmp_path / "run" / "first-000000009", tmp_path / "first-000000009")
    for name, step in (("first", 10), ("refit", 2)):
        checkpoints.save({"x": torch.full((2,), step)}, {"pass": name, "step": step})
        shutil.copytree(tmp_path / "first-000000009", tmp_path / "run" / "first-000000009")
        newest = checkpoints.latest()
        assert (newest.meta["pass"], newest.meta["step"], newest.tensors["x"].tolist()) == (
            name,
            step,
            [step, step],
        )


@pytest.mark.parametrize(
    "change", [{"backbone": "other"}, {"weights_id": "1" * 64}, {"image_size": 28}, {"precision": "float16"}]
)
def test_views_of_another_backbone_are_rejected(city, change):
    views = city.folder / "views.zarr"
    reader = FeatureReader.open(views)
    features = reader.read(0, reader.rows)
    shutil.rmtree(views)
    write_store(views, features, replace(RECIPE, augment={"seed": 0}, **change), names=view_names(city))
    with pytest.raises(RecipeMismatch, match=rf"{next(iter(change))}.*--split views --replace"):
        open_source(open_files(city.train_inputs(CONFIG)), np.ones(1, np.bool_))


def test_bad_views_are_left_out(city):
    views = city.folder / "views.zarr"
    features = FeatureReader.open(views).read(0, len(city.plan))
    shutil.rmtree(views)
    recipe = replace(RECIPE, augment={"seed": 0})
    write_store(views, features, recipe, bad=[0, 5, 6], names=view_names(city))
    rows = np.ones(len(city.labels), np.bool_)
    rows[[3, 70, city.plan.row[9]]] = False
    source = open_source(open_files(city.train_inputs(CONFIG)), rows)
    shown = [view for view, row in enumerate(city.plan.row) if rows[row] and view not in (0, 5, 6)]
    data = source.read([(0, source.reader.rows)], CPU)
    assert source.views == len(shown) == len(data.views)
    np.testing.assert_array_equal(data.views, features[shown])


def test_views_set_the_threshold_of_familiarity_too(city):
    city.train(CONFIG, fusion=FUSION)
    localiser, path = Localiser.load(city.folder / "localiser"), city.folder / "views.zarr"
    rows = np.ones(len(city.labels), np.bool_)
    rows[[3, 70]] = False

    def threshold(**changes):
        files = replace(open_files(city.train_inputs(CONFIG)), **changes)
        return fit_familiarity_threshold(localiser, files, rows, 0.1)

    photos, known_views = threshold(views=None), threshold()
    strange = -3 - np.random.default_rng(0).random((len(city.plan), sum(OUTPUTS.values())))
    shutil.rmtree(path)
    write_store(path, strange, replace(RECIPE, augment={"seed": 0}), bad=[0, 5], names=view_names(city))
    assert threshold() < photos < known_views


def with_values(path, row, values):
    """Put values into the first columns of a row, under a checksum that fits, and return a reader."""
    store = FeatureReader.open(path).store
    store.array("avg")[row, : len(values)] = values
    chunk = row // store.spec.chunk_rows
    rows = store.spec.chunk_slice(chunk)
    checksums = {name: zlib.crc32(store.array(name)[rows].tobytes()) for name in store.spec.outputs}
    store.ledger.mark(chunk, checksums, ())
    return FeatureReader.open(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_no_infinite_feature_is_trained_on(tmp_path, value, dtype):
    path, every = tmp_path / "database.zarr", np.ones(70, np.bool_)
    write_store(path, np.zeros((70, 24)), replace(RECIPE, dtype=dtype))
    largest = np.finfo(dtype).max
    finite = with_values(path, 3, [largest, -largest])
    assert load_rows(finite, every, ("avg",), CPU).shape == (70, 16)
    with pytest.raises(StoreError, match="not finite in the chunk of row 64"):
        load_rows(with_values(path, 66, [0.0, value]), every, ("avg",), CPU)


@pytest.mark.parametrize(("limit_bytes", "photos"), [(1, 1), (2 * 24 * 2 * 36 + 1, 2), (1 << 30, 4)])
def test_exemplars_keep_their_limit_of_bytes(city, monkeypatch, limit_bytes, photos):
    """One photo of each of 36 classes takes 24 numbers of two bytes."""
    monkeypatch.setattr("stages.train.exemplars.MOST_BYTES", limit_bytes)
    assert len(city.classes) == 36
    city.train(replace(CONFIG, max_steps=1, exemplars=4))
    vectors = load_file(city.folder / "localiser" / "localiser.safetensors")["exemplars.vectors"]
    assert vectors.shape == (36, photos, 24)


def holdout_of(city, seed=0, **validation):
    config = replace(CONFIG, validation=replace(VALIDATION, **validation))
    return split_rows(config, open_files(city.train_inputs(config)), (0, 1, 2, 3), seed)[1]


def test_any_class_may_be_held_out(city):
    seen = set()
    for seed in range(30):
        seen.update(city.labels[holdout_of(city, seed, share=0.05)].tolist())
    many = np.flatnonzero(np.bincount(city.labels) >= 8)  # photos of four days: no day has them all
    assert len(many) > 10
    assert len(seen.intersection(many.tolist())) > 0.8 * len(many)


def test_at_most_the_configured_images_are_held_out(city):
    half, some = holdout_of(city, share=0.5), holdout_of(city, share=0.5, max_images=20)
    assert half.sum() > 100
    assert 0 < some.sum() < 60  # the last visit may bring more


def test_images_are_held_out_of_the_classes_that_are_trained():
    """Forty photos of two days: each has a fine class of its own, and all share a coarse one."""
    labels = np.stack([np.arange(40), np.full(40, 40)], axis=1).astype(np.int32)
    days = np.array([f"2025-12-{1 + row % 2:02}" for row in range(40)])
    batch = {"utm_east": np.zeros(40), "utm_north": np.zeros(40)}
    files = SimpleNamespace(
        classes=SimpleNamespace(group=np.append(np.zeros(40, int), 1)),
        labels=labels,
        reader=SimpleNamespace(valid=np.ones(40, np.bool_)),
        manifest=_Manifest(days, batch),
    )
    config = replace(CONFIG, validation=replace(VALIDATION, share=0.1))
    rows, holdout = split_rows(config, files, (1,), 0)
    assert holdout.sum() == 20
    assert len(set(days[holdout])) == 1
    assert (rows ^ holdout).all()
    assert not split_rows(config, files, (0,), 0)[1].any()  # never all of a class


class _Manifest:
    """A manifest in memory."""

    def __init__(self, days, columns):
        self.rows, self._batch = len(days), pa.record_batch({"timestamp": pa.array(days.tolist()), **columns})

    def batches(self, columns):
        yield self._batch.select(columns)
