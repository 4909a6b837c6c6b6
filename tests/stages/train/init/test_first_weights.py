"""First weights against plain computations: moments, principal components, whitening, class means."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.models.heads.heads import HeadSettings, Projection
from stages.models.localiser.localiser import Localiser
from stages.train.init.pca import class_means, principal_components, standardise, store_moments
from stages.train.prepare import open_files, open_source
from tests.support.training_city import CONFIG, RECIPE, build_city, partition


def sample(rows, length, seed=0):
    """Features with a mean and twenty components of very different size, in two blocks."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(rows, 20)) * np.geomspace(8, 0.5, 20)
    features = mixed @ np.linalg.qr(random.normal(size=(length, 20)))[0].T + 5
    halves = features[: rows // 2], features[rows // 2 :]
    return features, [(torch.from_numpy(part).float(), np.zeros(len(part), np.int64)) for part in halves]


def test_standardised_features_have_mean_0_and_deviation_1():
    projection, features = Projection(3, 3), np.array([[2.0, 10, -1], [4, 30, -1.5], [6, 80, 0]])
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    standardise(projection, *(torch.from_numpy(value).float() for value in (mean, deviation)))
    with torch.no_grad():
        projection.weight.copy_(torch.eye(3))
    expected = (features - mean) / deviation
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(projection(torch.from_numpy(features)).detach(), expected, atol=1e-5)


@pytest.mark.parametrize(("rows", "length"), [(400, 20), (60, 2100)])  # more components than rows: by rows
def test_weights_are_the_leading_components(rows, length):
    features, blocks = sample(rows, length)
    projection = Projection(length, 4)
    principal_components(projection, blocks, whiten=False)
    _, _, components = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    agreement = np.abs((projection.weight.detach().double().numpy() * components[:4]).sum(axis=1))
    np.testing.assert_allclose(agreement, 1, atol=1e-4)


@pytest.mark.parametrize(("rows", "length"), [(400, 20), (60, 2100)])
def test_whitened_components_have_equal_deviations(rows, length):
    features, blocks = sample(rows, length)
    projection = Projection(length, 4)
    principal_components(projection, blocks, whiten=True)
    deviations = (features @ projection.weight.detach().double().numpy().T).std(axis=0)
    strongest = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)[0] / np.sqrt(rows)
    np.testing.assert_allclose(deviations, strongest, rtol=1e-3)


def test_moments_of_a_store_are_those_of_the_rows_trained_on(tmp_path):
    city = build_city(tmp_path / "city", bad=[3, 70])
    inputs = city.train_inputs(CONFIG)
    files = open_files(inputs)
    held_out = np.arange(len(city.labels)) % 3 == 1
    source = open_source(files, files.reader.valid & ~held_out)
    features = files.reader.read(0, files.reader.rows).astype(np.float64)
    trained = [row for row in range(len(features)) if row % 3 != 1 and row not in (3, 70)]
    mean, deviation = store_moments(source)
    np.testing.assert_allclose(mean, features[trained].mean(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(deviation, features[trained].std(axis=0), rtol=1e-4)


def test_prototypes_start_at_the_mean_embedding_of_their_class():
    table, _ = partition(np.random.default_rng(0).uniform(0, 100, (200, 2)))
    torch.manual_seed(0)
    localiser = Localiser.new(table, RECIPE, ("cls", "avg"), 6, HeadSettings("aamc", 30.0, 0.2, False))
    before = [head.prototypes.detach().clone() for head in localiser.heads]
    random = np.random.default_rng(1)
    features = torch.from_numpy(random.normal(size=(50, 24))).float()
    first, second = table.group_slice(1).start, table.group_slice(2).start
    labels = np.where(np.arange(50) < 20, first + 1, np.where(np.arange(50) < 45, second, -1))
    class_means(localiser, [(features[:30], labels[:30]), (features[30:], labels[30:])], (1, 2))
    for group, place, mine in ((1, 1, slice(0, 20)), (2, 0, slice(20, 45))):
        mean = localiser.embed(features[mine]).double().mean(dim=0)
        prototype = localiser.heads[group].prototypes.detach()
        torch.testing.assert_close(prototype[place].double(), mean / mean.norm(), rtol=1e-4, atol=1e-5)
        others = [row for row in range(len(prototype)) if row != place]
        assert torch.equal(prototype[others], before[group][others])
    for group in (0, 3):
        assert torch.equal(localiser.heads[group].prototypes.detach(), before[group])
