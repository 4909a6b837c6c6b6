"""Crops of the queries in an evaluation: their features are averaged, readable or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cache.reader import FeatureReader
from stages.eval.queries import Queries
from stages.index.manifest import Manifest
from stages.models.localiser.evidence import join_crops
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import answer, predict
from tests.support.training_city import CONFIG, CONFIG_EVAL, FUSION, build_city, write_store


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    city = build_city(tmp_path_factory.mktemp("crops") / "city", side=4, noise=1.0)
    city.train(replace(CONFIG, max_steps=20), fusion=FUSION)
    return city


def test_queries_have_the_mean_of_their_crops(city, tmp_path):
    manifest = Manifest.open(city.folder / "queries.parquet")
    centre = FeatureReader.open(city.folder / "queries.zarr")
    features = centre.read(0, centre.rows)
    write_store(tmp_path / "left.zarr", (features + np.float16(0.5)).astype(np.float16))
    localiser = Localiser.load(city.outputs()["localiser"])
    crops = [centre, FeatureReader.open(tmp_path / "left.zarr")]
    queries = Queries.load(crops, manifest, localiser, None, CONFIG_EVAL)
    own = features[queries.rows[queries.readable]].astype(float)
    np.testing.assert_allclose(queries.embedded.features, own + 0.25, atol=2e-2)


def test_one_crop_keeps_its_features(city):
    localiser = Localiser.load(city.outputs()["localiser"])
    features = np.ones((2, 3), np.float16)
    assert join_crops(localiser, [features]) is features


def test_views_share_their_evidence(city):
    localiser = Localiser.load(city.outputs()["localiser"])
    reader = FeatureReader.open(city.folder / "queries.zarr")
    features = reader.read(0, reader.rows)[reader.valid]
    pairs = np.stack([features, features], axis=1)
    single, double = (answer(localiser, each, top=3) for each in (features, pairs))
    np.testing.assert_allclose(single.positions, double.positions, atol=0.05)
    np.testing.assert_allclose(single.confidence, double.confidence, atol=1e-3)
    first = predict(localiser, features, top=1, score="cosine").score
    mixed = np.stack([features, features[::-1]], axis=1)
    assert (
        predict(localiser, mixed, top=1, score="cosine").score <= np.maximum(first, first[::-1]) + 1e-5
    ).all()
