"""Calibrated scores, answers and their confidence, worked out by hand from the equations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit, logit, logsumexp

from stages.models.heads.heads import HeadSettings
from stages.models.localiser.calibration import Calibration
from stages.models.localiser.calibration_fit import HoldoutScores, fit_calibration
from stages.models.localiser.cell_fusion import FusionConfig, fuse, share_near
from stages.models.localiser.confidence import PRIOR, Confidence, fit_confidence
from stages.models.localiser.evidence import ExemplarScores
from stages.models.localiser.exemplars import Exemplars
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import answer, predict
from stages.models.localiser.scoring import best_places, place_scores
from stages.models.localiser.topk import best_columns
from stages.partition.places import Places
from tests.support.training_city import RECIPE, partition

FUSION = FusionConfig(
    candidates=64, edge_m=5.0, covered=0.7, temperature=0.1, likeness=8.0, abstain_cost=0.02
)
TEMPERATURES = (0.02, 0.05, 0.1, 0.4)


def make(calibration=None):
    """A localiser of 25 cells of 20 m in four groups, with exemplars; features have 24 components."""
    east, north = np.meshgrid(np.arange(5) * 20.0 + 10, np.arange(5) * 20.0 + 10)
    table, _ = partition(np.stack([east.ravel(), north.ravel()], axis=1))
    torch.manual_seed(0)
    localiser = Localiser.new(table, RECIPE, ("cls", "avg"), 6, HeadSettings("aamc", 30.0, 0.2, False))
    photos = torch.from_numpy(np.random.default_rng(3).normal(size=(25, 24))).float()
    localiser.exemplars = Exemplars.of(photos, np.arange(25), 25)
    localiser.meta["calibration"] = None if calibration is None else calibration.to_dict()
    return localiser


def features(rows=12, seed=1):
    return np.random.default_rng(seed).normal(size=(rows, 24)).astype(np.float32)


def cosines_of(localiser, rows):
    """Cosines (B, classes) of equation 4.13, in float64."""
    z = rows.astype(np.float64) @ localiser.projection.weight.detach().double().numpy().T
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    prototypes = np.concatenate([head.prototypes.detach().double().numpy() for head in localiser.heads])
    return z @ (prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True)).T


def likeness_of(localiser, rows):
    """Cosines (B, classes) with each class's one exemplar, in float64."""
    centre = localiser.exemplars.centre.double().numpy()
    vectors = localiser.exemplars.vectors[:, 0].double().numpy()
    away = rows.astype(np.float64) - centre
    return away / np.linalg.norm(away, axis=1, keepdims=True) @ vectors.T


def softmax(evidence):
    powers = np.exp(evidence - evidence.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def plain(likeness, confidence=PRIOR):
    return Calibration(TEMPERATURES, likeness, confidence, 100, None, None)


def test_a_calibrated_score_divides_by_the_temperature():
    localiser = make(plain(3.0))
    evidence = cosines_of(localiser, features()) / np.array(TEMPERATURES)[localiser.classes.group]
    expected = softmax(evidence)
    results = predict(localiser, features(), top=25, score="calibrated")
    np.testing.assert_array_equal(results.class_id, np.argsort(-expected, axis=1))
    np.testing.assert_allclose(results.score, -np.sort(-expected, axis=1), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("weight", [0.5, 6.0])
def test_an_answer_weighs_cosines_and_likeness_as_calibrated(weight):
    localiser, rows = make(plain(weight)), features(40)
    evidence = cosines_of(localiser, rows) / np.array(TEMPERATURES)[localiser.classes.group]
    chances = softmax(evidence + weight * likeness_of(localiser, rows))
    # A radius that no neighbouring cell lies in: each answer is a cell, its mass the cell's chance.
    narrow = replace(FUSION, edge_m=1e-3, covered=1.0)
    answers = answer(localiser, rows, top=1, fusion=narrow, radius_m=5.0)
    np.testing.assert_array_equal(answers.class_id[:, 0], chances.argmax(axis=1))
    np.testing.assert_allclose(answers.mass[:, 0], chances.max(axis=1), rtol=2e-2)
    np.testing.assert_allclose(
        answers.positions[:, 0], localiser.classes.centres[chances.argmax(axis=1)], atol=1e-3
    )


def test_evidence_is_the_cosine_over_its_groups_temperature():
    evidence = plain(1.0).evidence(np.array([[0.8, 0.6, -0.2]]), np.array([[3, 0, 1]]))
    np.testing.assert_allclose(evidence, [[0.8 / 0.4, 0.6 / 0.02, -0.2 / 0.05]])
    both = plain(3.0).add_likeness(evidence, np.array([[0.5, 0, -1]]))
    np.testing.assert_allclose(both, [[2 + 1.5, 30, -4 - 3]])


def test_places_of_partitions_are_calibrated_by_their_group():
    """Each place has the temperature of the group of its first class."""
    votes = np.array([[0, 2], [1, 2], [1, 3]])
    ones, origin = np.ones(3, np.int64), np.zeros((3, 2))
    places = Places(
        ones, ones, ones, origin, np.array([0, 1, 1]), ones, np.array(["mid"] * 3), 20.0, votes, summed=True
    )
    cosines = torch.tensor([[0.4, 0.9, 0.2, 0.5]], dtype=torch.float64)
    parts = [(group, slice(group, group + 1), cosines[:, group : group + 1]) for group in range(4)]
    value, ids = best_places(places, votes, parts, 3, odds=False, calibration=plain(1.0))
    expected = {0: (0.4 + 0.2) / 2 / 0.02, 1: (0.9 + 0.2) / 2 / 0.05, 2: (0.9 + 0.5) / 2 / 0.05}
    order = sorted(expected, key=lambda place: -expected[place])
    assert ids[0].tolist() == order
    np.testing.assert_allclose(value[0], [expected[place] for place in order])


def test_classes_without_a_score_do_not_lower_the_mean():
    votes = np.array([[0, 1], [0, -1], [-1, -1]])
    parts = [(slice(0, 1), torch.tensor([[-2.0]])), (slice(1, 2), torch.tensor([[-4.0]]))]
    assert place_scores(votes, parts, mean=True).tolist() == [[-3.0, -2.0, -torch.inf]]
    assert place_scores(votes, parts, mean=False).tolist() == [[-2.0, -2.0, -torch.inf]]


@pytest.mark.parametrize("columns", [64 * 5 + 1, 64 * 9 + 63, 64 * 20 + 7])
def test_the_best_columns_may_lie_past_the_last_whole_run(columns):
    scores = torch.zeros(3, columns)
    scores[0, -1], scores[1, columns - columns % 64], scores[2, [5, columns - 1]] = (
        9.0,
        8.0,
        torch.tensor(7.0),
    )
    value, column = best_columns(scores, 2)
    assert column[:2, 0].tolist() == [columns - 1, columns - columns % 64]
    assert sorted(column[2].tolist()) == [5, columns - 1]
    assert value[:, 0].tolist() == [9.0, 8.0, 7.0]


def test_answers_lie_beyond_the_covered_share_of_the_radius():
    # At a soft edge much evidence is left 10 m beside the first answer, yet 0.7 * 25 m are taken.
    points = np.array([[[0.0, 0], [10, 0], [20, 0], [200, 0]]])
    weights = np.array([[0.5, 0.3, 0.199, 0.001]])
    fused = fuse(points, weights, 4, radius_m=25.0, edge_m=40.0, covered=0.7)
    shown = fused.positions[0][np.isfinite(fused.positions[0, :, 0])]
    assert len(shown) >= 2
    apart = np.linalg.norm(shown[:, None] - shown[None], axis=2)
    assert apart[np.triu_indices(len(shown), 1)].min() > 0.7 * 25


def test_an_answer_is_withheld_only_below_the_threshold():
    sure = Confidence(0.0, 0.0, 0.5)  # 1 / (1 + exp(0)) for every photo
    answers = answer(make(plain(1.0, sure)), features(3), top=1, fusion=FUSION, radius_m=25.0)
    assert answers.confidence.tolist() == [0.5] * 3
    assert not answers.abstain.any()
    above = answer(
        make(plain(1.0, replace(sure, abstain_below=0.51))), features(3), top=1, fusion=FUSION, radius_m=25.0
    )
    assert above.abstain.all()


def drawn_answers(count):
    """Shares of evidence, and answers that are right with log odds of 2 log odds of the share - 0.5."""
    random = np.random.default_rng(0)
    odds = random.normal(size=count)
    return expit(odds), random.random(count) < expit(2 * odds - 0.5)


def test_the_threshold_withholds_a_share_of_the_right_answers():
    share, right = drawn_answers(400)
    for cost in (0.05, 0.2):
        model = fit_confidence(share, right, abstain_cost=cost)
        withheld = model.of(share)[right] < model.abstain_below
        assert withheld.mean() == pytest.approx(cost, abs=1 / right.sum())


def test_a_fit_of_many_answers_finds_their_odds():
    model = fit_confidence(*drawn_answers(100_000), abstain_cost=0.05)
    assert (model.slope, model.offset) == pytest.approx((2, -0.5), abs=0.05)


def test_a_fit_of_few_answers_stays_near_the_prior():
    """It minimises the loss plus 50 times the squared distance from the prior."""
    share, right = drawn_answers(60)
    model = fit_confidence(share, right, abstain_cost=0.05)
    odds = logit(share)

    def objective(numbers):
        stated = numbers[0] * odds + numbers[1]
        loss = np.logaddexp(0, np.where(right, -stated, stated)).sum()
        return loss + 50 * ((numbers[0] - 1.5) ** 2 + (numbers[1] - 0.9) ** 2)

    best = minimize(objective, np.ones(2), method="Nelder-Mead", options={"xatol": 1e-6}).x
    assert (model.slope, model.offset) == pytest.approx(tuple(best), abs=1e-3)
    assert abs(model.slope - PRIOR.slope) < 0.2


def test_wrong_answers_alone_are_fitted_too():
    model = fit_confidence(np.full(40, 1.0), np.zeros(40, bool), abstain_cost=0.05)
    assert model.of(np.ones(1))[0] < PRIOR.of(np.ones(1))[0]
    assert model.abstain_below == 0


def test_the_share_near_a_place_counts_half_at_the_radius():
    points = np.array([[[0.0, 0.0], [0.0, 25.0], [0.0, 500.0], [np.nan, np.nan]]] * 2)
    weights = np.array([[1.0, 2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    share = share_near(np.zeros((2, 2)), points, weights, radius_m=25.0, edge_m=5.0)
    assert share == pytest.approx([(1 / (1 + np.exp(-5)) + 2 * 0.5) / 4, 0])


def scores_of_thirty(known):
    """Held-out scores of `known` images whose true cell is among four classes, all well apart."""
    random = np.random.default_rng(5)
    true = random.integers(0, 4, known)
    cosines = random.normal(size=(known, 4)) * 0.1 + 0.5 * (np.arange(4) == true[:, None])
    centres = np.tile(np.stack([np.arange(4) * 100.0, np.zeros(4)], axis=1), (known, 1, 1))
    groups = np.tile([0, 0, 1, 1], (known, 1))
    return HoldoutScores(cosines, groups, centres, None, true, centres[0, true] + 3)


def test_thirty_images_are_enough_to_calibrate():
    options = {"group_count": 2, "radius_m": 25.0, "fusion": FUSION}
    assert fit_calibration(scores_of_thirty(29), **options) == Calibration.configured(2, FUSION)
    fitted = fit_calibration(scores_of_thirty(30), **options)
    assert fitted.images == 30
    assert fitted.nll_after < fitted.nll_before


def test_a_fit_is_pulled_to_the_configured_numbers_as_stated():
    """It minimises the loss plus 50 times the squared logarithms of fitted over configured numbers."""
    random = np.random.default_rng(8)
    groups, true = np.tile([0, 0, 0, 1, 1, 1], (200, 1)), random.integers(0, 6, 200)
    inside = np.arange(6) == true[:, None]
    cosines = random.normal(size=(200, 6)) * 0.1 + 0.2 * inside
    likeness = random.normal(size=(200, 6)) * 0.3 + 0.2 * inside
    centres = np.tile(np.stack([np.arange(6) * 100.0, np.zeros(6)], axis=1), (200, 1, 1))
    exemplars = ExemplarScores(likeness, likeness, None)
    scores = HoldoutScores(cosines, groups, centres, exemplars, true, centres[0, true])
    fitted = fit_calibration(scores, group_count=2, radius_m=25.0, fusion=FUSION)

    def objective(numbers):
        shared, own, weight = numbers[0], numbers[1:3], numbers[3]
        evidence = cosines / (0.1 * np.exp(shared + own))[groups] + 8.0 * np.exp(weight) * likeness
        nll = logsumexp(evidence, axis=1) - evidence[inside]
        return nll.sum() + 50 * np.square(numbers).sum()

    best = minimize(objective, np.zeros(4))
    assert abs(best.x).min() > 0.01
    expected = 0.1 * np.exp(best.x[0] + best.x[1:3])
    np.testing.assert_allclose(fitted.temperatures, expected, rtol=1e-3)
    assert fitted.likeness == pytest.approx(8 * np.exp(best.x[3]), rel=1e-3)


def test_evidence_at_the_radius_counts_half():
    points = np.array([[[0.0, 0.0], [25.0, 0.0], [-25.0, 0.0], [0.0, 30.0], [0.0, -30.0]]])
    fused = fuse(points, np.array([[6.0, 1, 1, 1, 1]]), 1, radius_m=25.0, edge_m=5.0, covered=0.7)
    np.testing.assert_allclose(fused.positions[0, 0], [0, 0], atol=1e-9)
    # 1 / (1 + exp((d - 25) / 5)) for distances of 0, 25 and 30 m
    expected = 0.6 / (1 + np.exp(-5)) + 0.2 * 0.5 + 0.2 / (1 + np.e)
    assert fused.mass[0, 0] == pytest.approx(expected)
