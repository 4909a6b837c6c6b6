"""Every partition scheme from partition to report, and how scores of classes become scores of places."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cache.reader import FeatureReader
from stages.eval.report.config import ReportConfig
from stages.eval.report.stage import ReportInputs
from stages.eval.report.stage import run as report
from stages.eval.stage import EvalInputs
from stages.eval.stage import run as evaluate
from stages.index.manifest import Manifest
from stages.models.localiser.calibration import Calibration
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import predict
from stages.models.localiser.scoring import place_scores
from stages.partition.config import HeadingConfig, HierarchyConfig, QuadtreeConfig
from stages.partition.stage import PartitionInputs
from stages.partition.stage import run as partition
from stages.partition.views import ViewPlan
from stages.train.data.samplers import ClassImages
from tests.stages.partition.test_stage import config as partition_config
from tests.support.training_city import (
    CONFIG,
    CONFIG_EVAL,
    FUSION,
    OUTPUTS,
    RECIPE,
    build_city,
    write_rows,
    write_store,
)

EVAL = replace(CONFIG_EVAL, localisers=("classify", "retrieve", "hybrid"), score="fused")
TRAIN = replace(
    CONFIG,
    initial_weights="data",
    max_steps=60,
    validation=replace(CONFIG.validation, share=0.15, times=2),
)
QUIET = ReportConfig(queries=2, cells=2, photos_per_cell=1, thumbnail_px=32, photos_mb=0.1, map_queries=50)


def partition_again(city, scheme):
    """Partition a city with another scheme, and write a store of its views."""
    manifest = Manifest.open(city.folder / "database.parquet")
    headings = np.random.default_rng(1).uniform(0, 360, manifest.rows)
    days = manifest.column("timestamp").tolist()
    write_rows(city.folder / "database.parquet", manifest.positions(), days, headings=headings)
    config = partition_config(
        scheme=scheme,
        cell_m=20.0,
        groups_per_side=2 if scheme == "heading" else 1,
        max_views=1,
        quadtree=QuadtreeConfig(12, 2),
        hierarchy=HierarchyConfig((2,)),
        heading=HeadingConfig(180.0, 2),
    )
    folder = city.folder / "partition"
    result = partition(PartitionInputs(config, city.folder / "database.parquet", folder, seed=0))
    plan = ViewPlan.load(folder / "views.parquet")
    features = FeatureReader.open(city.folder / "database.zarr").read(0, manifest.rows, tuple(OUTPUTS))
    views = features[plan.row] + np.random.default_rng(2).normal(size=(len(plan), features.shape[1])) * 0.3
    names = [f"{row}.jpg#{view}" for row, view in zip(plan.row, plan.view, strict=True)]
    write_store(city.folder / "more.zarr", views, replace(RECIPE, augment={"seed": 0}), names=names)
    return result


@pytest.mark.parametrize("scheme", ["quadtree", "hierarchy", "combinatorial", "heading"])
def test_a_scheme_from_partition_to_report(tmp_path, scheme):
    city = build_city(tmp_path / "city", side=5, images=220)
    cut = partition_again(city, scheme)
    trained = city.train(TRAIN, views=city.folder / "more.zarr", fusion=FUSION)
    assert trained.classes == cut.classes
    assert trained.images + trained.held_out == cut.images_in_classes
    assert trained.held_out > 10
    assert 0 < trained.views < cut.views  # views of holdout images are not used
    localiser = Localiser.load(city.folder / "localiser")
    assert localiser.calibration is not None
    photos = {
        "database": city.folder / "database.zarr",
        "database_manifest": city.folder / "database.parquet",
    }
    result = evaluate(EvalInputs(EVAL, **city.outputs(), **photos))
    numbers = json.loads((city.folder / "details.json").read_text())
    assert numbers["classify"]["ceiling"] > 75
    for name in ("classify", "retrieve", "hybrid"):
        assert numbers[name]["LR@1"] > 70
    assert min(value for key, value in numbers["scores"].items() if key.endswith("LR@1")) > 55
    sizes = [count for key, count in numbers["breakdown"].items() if key[:4] == "cell" and "queries" in key]
    assert sum(sizes) == result.queries
    rows = pq.read_table(city.folder / "predictions.parquet")
    for ids in rows["class_ids"].to_pylist():
        known = [place for place in ids if place >= 0]
        assert len(known) == len(set(known))
        assert max(known) < cut.places
    inputs = ReportInputs(
        config=QUIET,
        predictions=city.folder / "predictions.parquet",
        details=city.folder / "details.json",
        recall_curve=city.folder / "lr_curve.csv",
        classes=city.folder / "localiser" / "classes.parquet",
        labels=city.folder / "partition" / "labels.npy",
        database=city.folder / "database.parquet",
        queries=city.folder / "queries.parquet",
        output=city.folder / "report.html",
        plots=city.folder / "plots",
    )
    assert report(inputs).queries == 100
    assert f"{cut.places:,} cells of 20" in (city.folder / "report.html").read_text()


def test_an_image_is_listed_under_each_of_its_classes():
    random = np.random.default_rng(0)
    labels = np.stack([random.integers(-1, 4, 50), random.integers(-1, 3, 50)], axis=1)
    labels[:, 1] = np.where(labels[:, 1] < 0, -1, labels[:, 1] + 4)
    viewed = np.sort(random.choice(50, 12))
    images = ClassImages(labels, 7, np.full(7, 0.5), viewed)
    for number in range(7):
        mine = np.flatnonzero((labels == number).any(axis=1))
        assert images.order[images.starts[number] : images.ends[number]].tolist() == mine.tolist()
        share = np.isin(mine, viewed).mean()
        assert images.p_view[number] == pytest.approx(min(1, 0.5 / share) if share else 0)


def slow_scores(votes, scores, mean):
    """Compute `place_scores` in a loop."""
    table = np.empty((len(scores), len(votes)))
    for query, row in enumerate(scores):
        for place, classes in enumerate(votes):
            values = [row[number] for number in classes if number >= 0 and row[number] > -np.inf]
            table[query, place] = (np.mean(values) if mean else max(values)) if values else -np.inf
    return table


@pytest.mark.parametrize("mean", [True, False])
def test_scores_of_places_are_means_or_maxima(mean):
    random = np.random.default_rng(0)
    scores = random.normal(size=(7, 9))
    scores[:, 4] = -np.inf
    votes = random.integers(-1, 9, (20, 3))
    votes[3] = -1
    votes[5] = [4, 4, -1]
    parts = [(slice(0, 4), torch.tensor(scores[:, :4])), (slice(4, 9), torch.tensor(scores[:, 4:]))]
    np.testing.assert_allclose(
        place_scores(votes, parts, mean=mean).numpy(), slow_scores(votes, scores, mean)
    )


@pytest.mark.parametrize("score", ["softmax", "cosine", "calibrated"])
@pytest.mark.parametrize("scheme", ["hierarchy", "heading"])
def test_predictions_equal_a_loop_over_places(tmp_path, scheme, score):
    city = build_city(tmp_path / "city", side=4, images=100)
    partition_again(city, scheme)
    city.train(replace(TRAIN, max_steps=10, augment_views=False))
    localiser = Localiser.load(city.folder / "localiser")
    places, classes = localiser.places, localiser.classes
    temperatures = tuple(0.05 + 0.01 * group for group in range(classes.groups))
    calibration = replace(Calibration.configured(classes.groups, FUSION), temperatures=temperatures)
    localiser.meta["calibration"] = calibration.to_dict()
    features = FeatureReader.open(city.folder / "queries.zarr").read(0, 20, tuple(OUTPUTS))
    predictions = predict(localiser, features, top=len(places) + 2, score=score)
    scores = np.empty((20, len(classes)))
    for group, head in enumerate(localiser.heads):
        logits = head(localiser.embed(features)).double().detach()
        values = logits.log_softmax(1) if score == "softmax" else logits / head.settings.scale
        scores[:, classes.group_slice(group)] = values.numpy()
    table = slow_scores(places.votes, scores, places.summed)
    if score == "softmax":
        table = np.exp(table)
    if score == "calibrated":
        evidence = np.exp(table / np.array(temperatures)[places.group])
        table = evidence / evidence.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predictions.score[:, :-2], -np.sort(-table, axis=1), rtol=1e-4, atol=1e-6)
    assert (predictions.class_id[:, -2:] == -1).all()
    for query in range(20):
        np.testing.assert_allclose(
            table[query, predictions.class_id[query, :-2]],
            predictions.score[query, :-2],
            rtol=1e-4,
            atol=1e-6,
        )
    np.testing.assert_array_equal(predictions.positions[:, 0], places.centres[predictions.class_id[:, 0]])
