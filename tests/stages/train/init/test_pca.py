"""Gains of the first projection: components that are constant in training must not dominate queries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.models.heads.heads import Projection
from stages.train.init import pca
from stages.train.init.pca import moments, principal_components, standardise

CONSTANT = (3, 7)


def features(rows=400, length=12):
    values = torch.randn(rows, length, generator=torch.Generator().manual_seed(0)) * 2 + 5
    values[:, list(CONSTANT)] = torch.tensor([4.0, 0.0])
    return values


def projection(values, size=6):
    made = Projection(values.shape[1], size)
    standardise(made, *moments([(values, np.zeros(len(values)))]))
    return made


def test_constant_components_get_a_bounded_gain():
    values = features()
    gain = projection(values).gain
    deviation = values.double().std(dim=0, correction=0)
    usual = deviation.square().mean().sqrt()
    lively = [column for column in range(12) if column not in CONSTANT]
    torch.testing.assert_close(gain[lively], (1 / deviation[lively]).float())
    torch.testing.assert_close(gain[list(CONSTANT)], (1 / (0.02 * usual)).float().expand(2))


def test_features_that_are_all_constant_get_gain_one():
    made = projection(torch.full((50, 4), 3.0), size=2)
    assert made.gain.tolist() == [1, 1, 1, 1]
    assert made.shift.tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("length", [12, 3000])  # from products of components, or of rows
def test_whitening_lifts_no_component_beyond_the_floor(length):
    values = torch.randn(300, length, generator=torch.Generator().manual_seed(1))
    values[:, 0] *= 30
    values[:, 1:] *= 1e-5
    made = Projection(length, 6)
    principal_components(made, [(values, np.zeros(300))], whiten=True)
    lift = made.weight.detach().norm(dim=1)
    assert lift[0] == pytest.approx(1, abs=1e-3)
    assert lift.max() <= 50.01 * 6**0.5  # 2 % of the quadratic mean of six deviations


def test_many_wide_rows_need_no_product_of_all_rows(monkeypatch):
    values = torch.randn(90, 30, generator=torch.Generator().manual_seed(2)) * torch.arange(1.0, 31)
    blocks = [(part, np.zeros(len(part))) for part in values.split(25)]
    expected = torch.linalg.svd(values - values.mean(dim=0), full_matrices=False).Vh[:4].abs()
    monkeypatch.setattr(pca, "_WIDE", 20)
    monkeypatch.setattr(pca, "_by_rows", None)
    made = Projection(30, 4)
    principal_components(made, iter(blocks), whiten=False)
    torch.testing.assert_close(made.weight.detach().abs(), expected, atol=1e-4, rtol=1e-4)
