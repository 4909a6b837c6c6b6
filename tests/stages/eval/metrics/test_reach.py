"""Chance and ceiling against hand computation and brute force."""

from __future__ import annotations

import numpy as np
import pytest

from stages.eval.metrics.reach import Reach, hull_distances
from stages.models.localiser.cell_fusion import fuse

SQUARE = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]])


def test_fused_answers_reach_between_cells():
    truth = np.array([[0.0, 10.0], [50.0, 50.0], [50.0, 120.0], [50.0, 130.0]])
    single = Reach.of(SQUARE, truth, 25.0, fused=False)
    assert (single.chance, single.near_cell, single.ceiling) == (6.25, 25, 25)
    fused = Reach.of(SQUARE, truth, 25.0, fused=True)
    assert (fused.chance, fused.near_cell, fused.ceiling) == (6.25, 25, 75)


def test_no_fused_answer_lies_beyond_the_hull():
    random = np.random.default_rng(0)
    points = random.uniform(0, 120, (200, 12, 2))
    weights = random.random((200, 12)) ** 8
    fused = fuse(points, weights, 5, radius_m=25.0, edge_m=5.0, covered=0.7).positions
    beyond_cells = 0
    for centres, answers in zip(points, fused, strict=True):
        given = answers[np.isfinite(answers[:, 0])]
        assert hull_distances(centres, given).max() < 1e-6
        beyond_cells += (np.linalg.norm(given[:, None] - centres, axis=2).min(axis=1) > 5).sum()
    assert beyond_cells > 20


@pytest.mark.parametrize("centres", [[[3.0, 4.0]], [[0.0, 0.0], [6.0, 8.0]], [[0, 0], [3, 4], [6, 8]]])
def test_distance_to_a_point_or_a_line_of_cells(centres):
    found = hull_distances(np.array(centres, float), np.array([[3.0, 4.0], [3.0, 14.0], [7.0, 1.0]]))
    if len(centres) == 1:
        np.testing.assert_allclose(found, [0, 10, 5])
    else:
        np.testing.assert_allclose(found, [0, np.hypot(3, 6), 5])


def test_no_cells_or_no_queries():
    assert Reach.of(SQUARE[:0], SQUARE, 25.0, fused=True).ceiling == 0
    assert Reach.of(SQUARE, SQUARE[:0], 25.0, fused=True).near_cell == 0
