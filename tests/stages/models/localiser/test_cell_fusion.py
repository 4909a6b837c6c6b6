"""Fusion by hand, and calibration on scores whose temperature is known."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from stages.errors import ConfigError
from stages.eval.metrics.reliability import reliability
from stages.models.localiser.calibration import Calibration, probabilities
from stages.models.localiser.calibration_fit import (
    HoldoutScores,
    drop_calibration,
    first_answers,
    fit_calibration,
    store_calibration,
)
from stages.models.localiser.cell_fusion import FusionConfig, fuse
from stages.models.localiser.confidence import PRIOR
from stages.models.localiser.evidence import ExemplarScores

ORIGIN = np.array([540_000.0, 4_170_000.0])
FUSION = FusionConfig(
    candidates=32, edge_m=5.0, covered=0.7, temperature=0.1, likeness=8.0, abstain_cost=0.02
)


def test_neighbours_together_beat_a_single_better_cell():
    points = np.array([[[0, 0], [500, 0], [520, 0], [500, 20]]]) + ORIGIN
    found = fuse(points, np.array([[0.4, 0.25, 0.2, 0.15]]), 3, radius_m=25, edge_m=1e-3, covered=1.0)
    # weighted centre of the three, then the lonely one
    np.testing.assert_allclose(
        found.positions[0, 0] - ORIGIN, [500 + 20 * 0.2 / 0.6, 20 * 0.15 / 0.6], atol=1e-6
    )
    np.testing.assert_allclose(found.positions[0, 1] - ORIGIN, [0, 0], atol=1e-6)
    np.testing.assert_allclose(found.mass[0], [0.6, 0.4, 0], atol=1e-9)
    assert found.nearest[0].tolist()[1:] == [0, -1]
    assert np.isnan(found.positions[0, 2]).all()


def test_answers_cover_different_places():
    random = np.random.default_rng(0)
    points = random.uniform(0, 300, (20, 32, 2)) + ORIGIN
    found = fuse(points, random.random((20, 32)), 5, radius_m=25, edge_m=5, covered=0.7)
    assert (found.mass[:, :2] > 0).all()
    assert (found.mass.sum(axis=1) <= 1 + 1e-9).all()
    apart = np.linalg.norm(found.positions[:, :, None] - found.positions[:, None], axis=3)
    assert apart[:, np.triu_indices(5, 1)[0], np.triu_indices(5, 1)[1]].min() > 0.7 * 25


def test_evidence_at_the_edge_is_left_for_the_next_answer():
    points = np.array([[[0, 0], [22, 0], [300, 0]]]) + ORIGIN
    weights = np.array([[0.5, 0.3, 0.2]])
    wide, narrow = (
        fuse(points, weights, 3, radius_m=25, edge_m=1e-3, covered=covered) for covered in (1.0, 0.4)
    )
    assert np.isnan(wide.positions[0, 2]).all()
    np.testing.assert_allclose(wide.mass[0], [0.8, 0.2, 0], atol=1e-9)
    assert np.isfinite(narrow.positions).all()
    # Seen twice, it counts once.
    np.testing.assert_allclose(narrow.mass[0].sum(), 1, atol=1e-9)


def test_first_answer_covers_at_least_what_any_single_cell_does():
    random = np.random.default_rng(1)
    points, weights = random.uniform(0, 200, (50, 16, 2)) + ORIGIN, random.random((50, 16))
    found = fuse(points, weights, 1, radius_m=25, edge_m=5, covered=0.7)
    apart = np.linalg.norm(points[:, :, None] - points[:, None], axis=3)
    covered = (weights[:, None] / (1 + np.exp((apart - 25) / 5))).sum(axis=2).max(axis=1) / weights.sum(
        axis=1
    )
    assert (found.mass[:, 0] >= covered - 1e-9).all()


def test_rows_are_independent_and_fillers_do_not_count():
    random = np.random.default_rng(2)
    points, weights = random.uniform(0, 200, (9, 8, 2)) + ORIGIN, random.random((9, 8))
    weights[4, 3:], points[4, 3:] = 0, np.nan
    weights[7], points[7] = 0, np.nan
    together = fuse(points, weights, 4, radius_m=25, edge_m=5, covered=0.7)
    for row in range(9):
        alone = fuse(points[row : row + 1], weights[row : row + 1], 4, radius_m=25, edge_m=5, covered=0.7)
        np.testing.assert_allclose(alone.positions[0], together.positions[row], atol=1e-6)
    few = fuse(points[4:5, :3], weights[4:5, :3], 4, radius_m=25, edge_m=5, covered=0.7)
    np.testing.assert_allclose(few.positions[0], together.positions[4], atol=1e-6)
    assert np.isnan(together.positions[7]).all()
    assert (together.nearest[7] == -1).all()


@pytest.mark.parametrize(
    "change",
    [
        {"candidates": 0},
        {"edge_m": 0.0},
        {"covered": 1.5},
        {"temperature": -1.0},
        {"likeness": 0.0},
        {"abstain_cost": 1.0},
    ],
)
def test_config_rejects(change):
    with pytest.raises(ConfigError, match=f"eval.fusion.{next(iter(change))}"):
        FusionConfig(**{**vars(FUSION), **change})


def drawn(chances, random):
    """A column of each row, drawn by its chance."""
    return (chances.cumsum(axis=1) > random.random((len(chances), 1))).argmax(axis=1)


def held_out(images=600, temperatures=(0.02, 0.3), seed=0):
    """Cosines of two groups of 12 classes each whose true cells follow softmax(cosine / temperature)."""
    random = np.random.default_rng(seed)
    groups = np.tile(np.repeat([0, 1], 12), (images, 1))
    evidence = random.normal(size=(images, 24)) * 2
    cosines = evidence * np.array(temperatures)[groups]
    chances = probabilities(evidence)
    true = drawn(chances, random)
    centres = np.tile(np.stack([np.arange(24) * 100.0, np.zeros(24)], 1) + ORIGIN, (images, 1, 1))
    return cosines, groups, centres, true, centres[0, true]


def fitted(cosines, groups, centres, true, truth, likeness=None):
    exemplars = None if likeness is None else ExemplarScores(likeness, likeness, None)
    holdout = HoldoutScores(cosines, groups, centres, exemplars, true, truth)
    return fit_calibration(holdout, group_count=2, radius_m=25, fusion=FUSION)


def test_calibration_finds_temperatures_and_lowers_the_loss():
    data = held_out(3000)
    found = fitted(*data)
    np.testing.assert_allclose(found.temperatures, [0.02, 0.3], rtol=0.2)
    assert found.nll_after < found.nll_before
    fresh = held_out(3000, seed=1)
    plain = Calibration.configured(2, FUSION)
    loss = [
        -np.log(np.take_along_axis(probabilities(one.evidence(*fresh[:2])), fresh[3][:, None], 1)).mean()
        for one in (plain, found)
    ]
    assert loss[1] < loss[0]


def test_calibration_finds_the_weight_of_likeness():
    random = np.random.default_rng(3)
    cosines, groups, centres, _, _ = held_out(3000)
    likeness = random.uniform(-1, 1, cosines.shape)
    chances = probabilities(cosines / np.array([0.02, 0.3])[groups] + 3 * likeness)
    true = drawn(chances, random)
    found = fitted(cosines, groups, centres, true, centres[0, true], likeness)
    assert found.likeness == pytest.approx(3, rel=0.2)


def test_few_images_hardly_change_the_configured_values():
    found = fitted(*held_out(40))
    assert abs(np.log(np.array(found.temperatures) / FUSION.temperature)).max() < 1.5


def test_calibration_keeps_the_order_within_a_group():
    cosines, groups, *rest = held_out()
    evidence = fitted(cosines, groups, *rest).evidence(cosines, groups)
    for part in (slice(0, 12), slice(12, 24)):
        np.testing.assert_array_equal(np.argsort(cosines[:, part]), np.argsort(evidence[:, part]))


def likeness_of(true, seed):
    """Photos of a place look like it, others less so."""
    random = np.random.default_rng(seed)
    return np.where(np.arange(24) == true[:, None], 0.7, 0.3) + random.normal(size=(len(true), 24)) * 0.1


def test_confidence_is_honest():
    data = held_out(3000)
    found = fitted(*data, likeness_of(data[3], 7))
    cosines, groups, centres, true, truth = held_out(3000, seed=2)
    evidence = found.add_likeness(found.evidence(cosines, groups), likeness_of(true, 4))
    fused = first_answers(evidence, centres, 25, FUSION)
    confidence = found.confidence.of(fused.mass[:, 0])
    right = np.linalg.norm(fused.positions[:, 0] - truth, axis=1) <= 25
    assert abs(confidence.mean() - right.mean()) < 0.02
    assert reliability(confidence, right).error < 3
    below = found.confidence.abstain_below
    assert (confidence[right] < below).mean() == pytest.approx(FUSION.abstain_cost, abs=0.02)


def test_too_few_images_leave_the_prior():
    found = fitted(*(part[:20] for part in held_out()))
    assert found == Calibration.configured(2, FUSION)
    assert found.confidence == PRIOR
    # 1 / (1 + exp(-(1.5 log(0.8 / 0.2) + 0.9)))
    assert found.confidence.of(np.array([0.5, 0.8])) == pytest.approx([0.71095, 0.95163], abs=1e-5)


def test_models_of_older_localisers_become_the_prior():
    old = {"inside": [1.0, 2.0], "right": [1.0, 0.0, 0.0], "scale": [1.0, 0.0], "abstain_below": 0.3}
    stored = Calibration.configured(2, FUSION).to_dict()
    for content in (old, None):
        assert Calibration.from_dict({**stored, "confidence": content}).confidence == PRIOR


def test_calibration_survives_json():
    found = fitted(*held_out(100))
    assert found.confidence != PRIOR
    assert Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_training_heads_alone_removes_the_calibration():
    localiser = SimpleNamespace(meta={"calibration": Calibration.configured(2, FUSION).to_dict()})
    drop_calibration(localiser, (0, 3))
    assert localiser.meta["calibration"] is None
    assert localiser.meta["uncalibrated_since"] == "groups 0, 3 were trained alone"
    store_calibration(localiser, Calibration.configured(2, FUSION).to_dict(), radius_m=25.0, fusion=FUSION)
    assert "uncalibrated_since" not in localiser.meta
