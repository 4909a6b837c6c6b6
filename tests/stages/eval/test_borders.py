"""Distances on the border, equal photos and summaries of an evaluation, by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cache.reader import FeatureReader
from stages.eval.localisers.database import Database
from stages.eval.localisers.retrieval import PhotoSpace, nearest_photos
from stages.eval.metrics.breakdown import distances
from stages.eval.metrics.metric_blocks import confidence_block, score_block
from stages.eval.queries import Queries
from stages.index.manifest import Manifest
from stages.models.heads.heads import HeadSettings
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.recall import errors_m, recall_percent
from stages.partition.places import Places
from tests.support.training_city import CONFIG_EVAL, RECIPE, partition, write_rows, write_store

ORIGIN = np.array([500_000.0, 4_000_000.0])
HEAD = HeadSettings("aamc", 30.0, 0.2, False)


def localiser_of(positions):
    torch.manual_seed(0)
    return Localiser.new(partition(positions)[0], RECIPE, ("cls", "avg"), 6, HEAD)


def split(folder, name, positions):
    """Write store and manifest of photos at these positions and open them."""
    write_store(folder / f"{name}.zarr", np.random.default_rng(0).normal(size=(len(positions), 24)))
    write_rows(folder / f"{name}.parquet", positions, [""] * len(positions))
    return FeatureReader.open(folder / f"{name}.zarr"), Manifest.open(folder / f"{name}.parquet")


def test_outside_means_beyond_the_radius_of_every_known_photo(tmp_path):
    known = ORIGIN + np.array([[0.0, 0.0], [1000.0, 0.0]])
    # 25 m is a hypotenuse of 15 and 20, 49 m lies within twice the radius.
    away = np.array([[0.0, 0.0], [15.0, 20.0], [15.0, 20.01], [0.0, 49.0], [0.0, 51.0], [975.0, 0.0]])
    localiser = localiser_of(known)
    queries = split(tmp_path, "queries", ORIGIN + away)
    database = Database(*split(tmp_path, "database", known))
    config = replace(CONFIG_EVAL, radius_m=25.0)
    outside = Queries.load([queries[0]], queries[1], localiser, database, config).outside
    assert outside.tolist() == [False, False, True, True, True, False]
    # Without a database the centres of the cells stand for its photos.
    centres = localiser.places.centres
    moved = split(tmp_path, "moved", centres[[0, 0, 1]] + [[15.0, 20.0], [0.0, 26.0], [0.0, -24.0]])
    outside = Queries.load([moved[0]], moved[1], localiser, None, config).outside
    assert outside.tolist() == [False, True, False]


def test_an_answer_at_the_radius_is_right_beyond_wrong():
    truth = np.tile(ORIGIN, (3, 1))
    errors = errors_m(truth[:, None] + [[[15.0, 20.0]], [[15.0, 20.001]], [[np.nan, 0.0]]], truth)
    assert errors[0, 0] == 25
    assert recall_percent(errors, 25.0, (1,))[1] == pytest.approx(100 / 3)


def test_distances_count_a_border_to_the_nearer_step():
    places = Places.of(partition((ORIGIN + 5)[None])[0])
    steps = np.array([[0.0, 0.0], [12.0, 16.0], [12.0, 16.01], [24.0, 32.0], [24.0, 32.01]])  # 20 m, 40 m
    names = distances(places, places.centres + steps).tolist()
    assert names == ["within 20 m", "within 20 m", "20 to 40 m", "20 to 40 m", "beyond 40 m"]


def test_the_lower_row_wins_among_equal_photos(tmp_path):
    features = np.random.default_rng(1).normal(size=(200, 24)).astype(np.float16)
    features[[70, 150, 199]] = features[5]
    write_store(tmp_path / "database.zarr", features)
    space = PhotoSpace(localiser_of(ORIGIN + np.arange(40.0).reshape(20, 2) * 9), "frozen")
    reader = FeatureReader.open(tmp_path / "database.zarr")
    found = nearest_photos(space.vectors(features[5:6]), reader, space, 3)
    assert found.rows.tolist() == [[5, 70, 150]]
    np.testing.assert_allclose(found.similarity, 1, atol=1e-3)


def test_the_best_score_has_the_highest_recall(tmp_path):
    positions = ORIGIN + np.random.default_rng(2).uniform(0, 100, (80, 2))
    localiser = localiser_of(positions)
    reader, manifest = split(tmp_path, "queries", positions)
    queries = Queries.load([reader], manifest, localiser, None, CONFIG_EVAL)
    block = score_block(localiser, queries, CONFIG_EVAL)
    recall = {name: block[f"{name} LR@1"] for name in ("softmax", "cosine", "fused")}
    assert len(set(recall.values())) > 1
    assert recall[block["best"]] == max(recall.values())


def test_risks_are_those_of_the_most_trusted_answers():
    right = np.array([True, True, True, False, False])
    answers = SimpleNamespace(
        confidence=lambda _: np.array([0.9, 0.8, 0.7, 0.6, 0.5]),
        abstain=np.array([False, False, True, False, True]),
        errors_m={"classify": np.where(right, 25.0, 25.01)[:, None]},
    )
    queries = SimpleNamespace(
        readable=np.ones(5, np.bool_), outside=np.array([False, True, False, False, True])
    )
    config = replace(CONFIG_EVAL, score="fused", radius_m=25.0)
    block = confidence_block(SimpleNamespace(meta={}), answers, queries, config)
    assert block["risk at 50 %"] == 0  # three of five
    assert block["risk at 80 %"] == 25  # four of five
    assert block["AURC"] == pytest.approx((0 + 0 + 0 + 1 / 4 + 2 / 5) / 5, abs=1e-4)
    assert block["AUROC right"] == 1
    assert block["AUROC outside"] == pytest.approx(4 / 6, abs=1e-4)  # of the six pairs of inside and outside
    assert (block["abstained"], block["abstained outside"]) == (40, 50)
    assert block["abstained right"] == pytest.approx(100 / 3, abs=1e-3)
    assert (block["mean"], block["outside queries"]) == (pytest.approx(70), 2)
    assert block["ECE"] == pytest.approx(100 * (0.1 + 0.2 + 0.3 + 0.6 + 0.5) / 5)
