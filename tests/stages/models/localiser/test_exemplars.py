"""Exemplars by hand."""

from __future__ import annotations

import numpy as np
import torch

from stages.models.localiser.exemplars import Exemplars, choose_exemplars


def test_at_most_so_many_photos_of_each_class_are_drawn():
    labels = np.array([2, 0, 0, -1, 0, 2, 0, 1])
    usable = np.array([True, True, True, True, True, True, False, False])
    row, class_id = choose_exemplars(labels, usable, 2, np.random.default_rng(0))
    assert class_id.tolist() == [0, 0, 2, 2]
    assert set(row[2:]) == {0, 5}
    assert set(row[:2]) < {1, 2, 4}
    np.testing.assert_array_equal(labels[row], class_id)
    again, _ = choose_exemplars(labels, usable, 2, np.random.default_rng(0))
    np.testing.assert_array_equal(row, again)


def test_photos_are_drawn_in_each_of_several_partitions():
    labels = np.array([[0, 3], [1, 3], [-1, 4]])
    row, class_id = choose_exemplars(labels, np.ones(3, bool), 1, np.random.default_rng(0))
    assert class_id.tolist() == [0, 1, 3, 4]
    assert row[[0, 1, 3]].tolist() == [0, 1, 2]


def test_likeness_is_the_best_centred_cosine():
    random = np.random.default_rng(0)
    features = random.normal(size=(5, 6)).astype(np.float32) + 3
    class_id = np.array([0, 0, 0, 2, 2])
    found = Exemplars.of(torch.from_numpy(features), class_id, 4)
    queries = random.normal(size=(70, 6)).astype(np.float32) + 3
    asked = np.tile([2, 0, 1, -1], (70, 1))
    likeness, plain = found.compare(queries, asked)
    unit = [
        x / np.linalg.norm(x, axis=1, keepdims=True)
        for x in (features - features.mean(0), queries - features.mean(0))
    ]
    cosines = unit[1] @ unit[0].T
    np.testing.assert_allclose(likeness[:, 0], cosines[:, 3:].max(axis=1), atol=2e-3)
    np.testing.assert_allclose(likeness[:, 1], cosines[:, :3].max(axis=1), atol=2e-3)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (features, queries)]
    cosines = unit[1] @ unit[0].T
    np.testing.assert_allclose(plain[:, 0], cosines[:, 3:].max(axis=1), atol=2e-3)
    np.testing.assert_allclose(plain[:, 1], cosines[:, :3].max(axis=1), atol=2e-3)
    assert (plain[:, 2:] == -1).all()
    assert (likeness[:, 2] == 0).all()  # a class without a photo
    assert (likeness[:, 3] == -1).all()  # no class


def test_features_come_back_from_their_exemplars():
    features = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32) + 3
    again, class_id = Exemplars.of(torch.from_numpy(features), np.array([0, 0, 2, 2, 2]), 4).features()
    np.testing.assert_allclose(again, features[[0, 1, 1, 2, 3, 4]], atol=2e-3)  # the last one is repeated
    assert class_id.tolist() == [0, 0, 0, 2, 2, 2]


def test_no_photo_at_all():
    found = Exemplars.of(torch.zeros(0, 6), np.zeros(0, np.int64), 3)
    assert found.vectors.shape == (3, 1, 6)
