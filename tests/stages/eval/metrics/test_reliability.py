"""Confidence measures against hand computation and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from stages.eval.metrics.breakdown import by_value
from stages.eval.metrics.reliability import reliability, risk_coverage, separation


def test_calibration_error_by_hand():
    confidence = np.array([0.05, 0.15, 0.15, 0.95, 1.0])
    right = np.array([False, True, False, True, True])
    # bins: [0, .1) gap .05 x 1; [.1, .2) |.15 - .5| x 2; [.9, 1] |.975 - 1| x 2
    expected = 100 * (0.05 * 1 + 0.35 * 2 + 0.025 * 2) / 5
    assert reliability(confidence, right).error == pytest.approx(expected)
    assert np.isnan(reliability(confidence[:0], right[:0]).error)


def test_calibrated_confidence_has_a_small_error():
    random = np.random.default_rng(0)
    confidence = random.random(20_000)
    assert reliability(confidence, random.random(20_000) < confidence).error < 2
    assert reliability(confidence, random.random(20_000) < confidence / 2).error > 20


def test_separation_is_the_auroc():
    random = np.random.default_rng(1)
    confidence, wanted = random.random(200).round(1), random.random(200) < 0.4
    pairs = confidence[wanted][:, None] - confidence[~wanted][None]
    assert separation(confidence, wanted) == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    assert separation(confidence, wanted) == pytest.approx(roc_auc_score(wanted, confidence))
    assert np.isnan(separation(confidence, wanted | True))


def test_risk_coverage_by_hand():
    curve = risk_coverage(np.array([0.2, 0.9, 0.5, 0.7]), np.array([False, True, True, False]))
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 2 / 4])
    assert curve.area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert curve.risk_at(0.5) == pytest.approx(1 / 2)
    assert curve.risk_at(0.51) == pytest.approx(1 / 3)


def test_recall_by_type_of_query():
    kind = np.array(["day", "night", "day", "day"])
    found = by_value("light", kind, np.array([True, False, False, True]))
    assert found == {
        "light day LR@1": 66.667,
        "light day queries": 3,
        "light night LR@1": 0.0,
        "light night queries": 1,
    }
