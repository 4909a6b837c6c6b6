"""Retrieval and hybrid against plain computations."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from cache.reader import FeatureReader, gather
from cache.recipe import Recipe
from stages.errors import InputError
from stages.eval.config import HybridConfig
from stages.eval.localisers import hybrid as hybrid_module
from stages.eval.localisers import retrieval
from stages.eval.localisers.cell_index import CellIndex
from stages.eval.localisers.hybrid import Hybrid
from stages.eval.localisers.retrieval import PhotoSpace, nearest_photos
from stages.models.aggregators.config import AggregatorSettings
from stages.models.heads.heads import HeadSettings
from stages.models.localiser.cell_fusion import FusionConfig
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import predict
from stages.models.trainable_blocks import TrainableBlocksSettings
from tests.support.training_city import RECIPE, partition, write_store

ROWS = 333  # not a multiple of the chunk's 64
BAD = (0, 63, 64, 200, 332)
FUSION = FusionConfig(
    candidates=500, edge_m=5.0, covered=0.7, temperature=0.1, likeness=8.0, abstain_cost=0.02
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    random = np.random.default_rng(0)
    features = random.normal(size=(ROWS, 24))
    positions = random.uniform(0, 120, (ROWS, 2)) + np.array([540_000, 4_170_000])
    path = tmp_path_factory.mktemp("search") / "database.zarr"
    write_store(path, features, bad=BAD)
    table, _ = partition(positions)
    torch.manual_seed(0)
    localiser = Localiser.new(table, RECIPE, ("cls", "avg"), 6, HeadSettings("aamc", 30.0, 0.2, False))
    queries = random.normal(size=(50, 24)).astype(np.float16)
    return FeatureReader.open(path), positions, localiser, queries


def plain(reader, space, vectors, count):
    sound = np.flatnonzero(reader.valid)
    database = space.vectors(reader.read(0, ROWS)[sound]).numpy()
    found = NearestNeighbors(n_neighbors=count, algorithm="brute", metric="cosine").fit(database)
    distance, place = found.kneighbors(vectors.numpy())
    return sound[place], 1 - distance


@pytest.mark.parametrize("kind", ["projected", "frozen"])
@pytest.mark.parametrize("at_once", [512, 7])
def test_nearest_photos_equal_scikit_learn(photos, kind, at_once, monkeypatch):
    reader, _, localiser, queries = photos
    monkeypatch.setattr(retrieval, "_ROWS_IN_CACHE", at_once)
    space = PhotoSpace(localiser, kind)
    vectors = space.vectors(queries)
    found = nearest_photos(vectors, reader, space, 20)
    rows, likeness = plain(reader, space, vectors, 20)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.similarity, likeness, atol=1e-5)
    assert not np.isin(found.rows, BAD).any()


def test_asking_for_more_photos_than_exist(photos):
    reader, _, localiser, queries = photos
    space = PhotoSpace(localiser, "frozen")
    found = nearest_photos(space.vectors(queries[:2]), reader, space, ROWS + 5)
    assert (found.rows[:, ROWS - len(BAD) :] == -1).all()
    assert sorted(found.rows[0][: ROWS - len(BAD)]) == sorted(np.flatnonzero(reader.valid))


def test_equally_similar_photos_keep_their_order(photos, tmp_path):
    localiser, random = photos[2], np.random.default_rng(5)
    some = random.normal(size=(9, 24))
    write_store(tmp_path / "database.zarr", some[np.arange(300) % 9])
    reader, space = FeatureReader.open(tmp_path / "database.zarr"), PhotoSpace(localiser, "frozen")
    found = nearest_photos(space.vectors(some.astype(np.float16)), reader, space, 40)
    copies = [list(range(kind, 300, 9)) for kind in range(9)]
    assert [row[:33] for row in found.rows.tolist()] == [own[:33] for own in copies]


def test_the_database_is_read_chunk_by_chunk(photos, monkeypatch):
    reader, _, localiser, queries = photos
    chunks = []
    mapped = reader.mapped
    monkeypatch.setattr(reader, "mapped", lambda name, chunk: chunks.append(chunk) or mapped(name, chunk))
    space = PhotoSpace(localiser, "projected")
    nearest_photos(space.vectors(queries), reader, space, 5)
    outputs = len(space.inputs)
    assert chunks == np.repeat(np.arange(reader.store.spec.chunks), outputs).tolist()  # once for all queries


def test_frozen_vectors_read_only_pooled_outputs(photos, monkeypatch, tmp_path):
    outputs = {"cut7": 320, "avg": 24}
    recipe = Recipe("efficientnet_lite0", "random", "0" * 64, 32, {}, outputs, "float16", "float32")
    random = np.random.default_rng(3)
    features = random.normal(size=(100, 344))
    write_store(tmp_path / "database.zarr", features, recipe)
    reader, mapped, names = FeatureReader.open(tmp_path / "database.zarr"), FeatureReader.mapped, []
    pooled = AggregatorSettings(kind="pooled", clusters=4, channels=8, global_length=4)
    tail = TrainableBlocksSettings("efficientnet_lite0", 32, 7, ("avg",), pooled)
    settings = HeadSettings("aamc", 30.0, 0.2, False)
    localiser = Localiser.new(photos[2].classes, recipe, ("avg", "cut7"), 6, settings, tail)
    monkeypatch.setattr(
        FeatureReader, "mapped", lambda self, *given: names.append(given[0]) or mapped(self, *given)
    )
    space = PhotoSpace(localiser, "frozen")
    queries = reader.read(0, 9, localiser.inputs)
    found = nearest_photos(space.vectors(queries), reader, space, 3)
    assert names == ["avg"] * 2
    rows, likeness = plain_nearest(features[:, 320:], features[:9, 320:], 3)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.similarity, likeness, atol=1e-3)
    assert PhotoSpace(localiser, "projected").inputs == localiser.inputs


def plain_nearest(database, queries, count):
    unit, asked = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (database, queries))
    cosines = asked @ unit.T
    rows = np.argsort(-cosines, axis=1)[:, :count]
    return rows, np.take_along_axis(cosines, rows, axis=1)


def test_gathered_rows_equal_read_rows(photos):
    reader, _, _, _ = photos
    rows = np.array([0, 1, 62, 63, 64, 130, 130, 332])
    np.testing.assert_array_equal(gather(reader, rows), reader.read(0, ROWS)[rows])
    np.testing.assert_array_equal(gather(reader, rows, ["avg"]), reader.read(0, ROWS, ["avg"])[rows])
    assert gather(reader, rows[:0]).shape == (0, 24)


def make(city, **change):
    reader, positions, localiser, _ = city
    config = HybridConfig(
        cells=len(localiser.classes), neighbours=1, photos=20, temperature=0.1, prior_weight=0.0
    )
    space = PhotoSpace(localiser, "projected")
    index = CellIndex.build(reader, positions, space, localiser.classes.cell_m)
    return Hybrid(space, index, replace(config, **change), FUSION, 25.0)


def test_hybrid_equals_retrieval_if_all_cells_are_proposed(photos, monkeypatch):
    reader, _, _, queries = photos
    monkeypatch.setattr(hybrid_module, "_QUERIES_AT_ONCE", 7)
    hybrid = make(photos)
    rows, weights = hybrid.rank(queries)
    found = nearest_photos(hybrid.space.vectors(queries), reader, hybrid.space, 20)
    # The index holds 16 bits of a number, so neighbours in rank may change places.
    vectors = hybrid.space.vectors(reader.read(0, ROWS)).numpy()
    likeness = np.einsum("qkd,qd->qk", vectors[rows], hybrid.space.vectors(queries).numpy())
    np.testing.assert_allclose(likeness, found.similarity, atol=2e-3)
    assert (rows == found.rows).mean() > 0.9
    assert (np.diff(weights, axis=1) <= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_a_full_disk_is_reported(photos, monkeypatch, tmp_path):
    reader, positions, localiser, _ = photos

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"hybrid needs [\d,]+ bytes in .*No space left.*eval\.localisers"):
        CellIndex.build(reader, positions, PhotoSpace(localiser, "frozen"), 10.0, tmp_path)


def test_photos_of_a_cell_are_adjacent(photos):
    reader, positions, localiser, _ = photos
    space, cell_m = PhotoSpace(localiser, "frozen"), localiser.classes.cell_m
    index = CellIndex.build(reader, positions, space, cell_m)
    assert sorted(index.rows) == np.flatnonzero(reader.valid).tolist()
    cell = np.floor(positions[index.rows] / cell_m)
    changes = (np.diff(cell, axis=0) != 0).any(axis=1).sum() + 1
    assert changes == len(index.codes) == len(np.unique(cell, axis=0))
    vectors = space.vectors(reader.read(0, ROWS)[index.rows]).numpy()
    np.testing.assert_allclose(index.vectors, vectors, atol=1e-3)
    places, number = index.within(index.codes[[3, 5]])
    assert number.tolist() == sorted(number)
    assert set(places) == set(np.r_[index.starts[3] : index.starts[4], index.starts[5] : index.starts[6]])


def test_hybrid_searches_only_proposed_cells_and_neighbours(photos):
    _, positions, localiser, queries = photos
    for ring in (0, 1):
        hybrid = make(photos, cells=1, neighbours=ring, photos=300)
        rows, _ = hybrid.rank(queries)
        best = predict(localiser, queries, top=1, score="cosine").positions[:, 0]
        for query, mine in enumerate(rows):
            mine = mine[mine >= 0]
            reach = localiser.classes.cell_m * (ring + 0.5)
            inside = (np.abs(positions - best[query]) <= reach).all(axis=1)
            inside[list(BAD)] = False
            assert sorted(mine) == np.flatnonzero(inside).tolist()


def test_prior_weight_lets_the_best_cell_decide(photos):
    _, positions, localiser, queries = photos
    rows, _ = make(photos, prior_weight=1e6).rank(queries)
    best = predict(localiser, queries, top=1, score="cosine").positions[:, 0]
    near = np.abs(positions - best[:, None]).max(axis=2) <= localiser.classes.cell_m / 2 + 1e-6
    near[:, list(BAD)] = False
    holds = near.any(axis=1)  # not where the best cell has unreadable photos only
    assert holds.sum() > 40
    assert near[np.flatnonzero(holds), rows[holds, 0]].all()


def test_a_query_without_any_photo_has_no_answer(photos):
    reader, positions, localiser, queries = photos
    hybrid = make(photos)
    nowhere = CellIndex.build(reader, positions + 1e5, hybrid.space, localiser.classes.cell_m)
    found = replace(hybrid, index=nowhere).locate(queries[:3], 5)
    assert np.isnan(found.positions).all()
    assert (found.mass == 0).all()
