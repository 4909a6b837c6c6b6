"""Confidence of an answer: the probability that it is right, if the photo shows this city.

It depends on one number, the share of the evidence within the radius of the answer:

    log odds of being right = slope * log odds of the share + offset.

Likeness to exemplars and familiarity were inputs too, and are not: on walks left out of the database they
separated right from wrong answers no better, and their weights, fitted on the few visits that a city can
hold out, were far from those of the next walk. For the same reason the two numbers are pulled to `PRIOR`.

Answers are withheld for low familiarity (`stages.models.localiser.familiarity`). Localisers without it, such
as those without exemplars, withhold answers of low confidence; the threshold costs a configured share of the
right answers (`eval.fusion.abstain_cost`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_SHRINKAGE = 100.0
"""Weight of the prior: about that of 400 images. A hundred images of a few visits hardly move it."""
_LEAST_SHARE = 1e-6


@dataclass(frozen=True)
class Confidence:
    """Slope and offset of the log odds, and the confidence below which an answer is withheld.

    `abstain_below` matters only if the localiser knows no familiarity.
    """

    slope: float
    offset: float
    abstain_below: float = 0.0

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Confidence:
        """Return the confidence that `to_dict` described; `PRIOR` for the models of older localisers."""
        return cls(**content) if content.keys() == asdict(PRIOR).keys() else PRIOR

    def to_dict(self) -> dict[str, float]:
        """Return plain JSON values."""
        return asdict(self)

    def of(self, share: Floats) -> Floats:
        """Return the probability that an answer with this share of the evidence is right."""
        return _logistic(self.slope * _log_odds(share) + self.offset)


PRIOR = Confidence(1.5, 0.9)
"""Of a single photo, from answers to walks left out of a campus database and to other toy cities."""
HYBRID = Confidence(1.0, -0.5)
"""Of `hybrid`, from such walks with earlier features. `retrieve` and walks state their share as it is."""


def fit_confidence(share: Floats, right: Bools, *, abstain_cost: float) -> Confidence:
    """Fit the confidence on the first answers to held-out images.

    Slope and offset maximise the likelihood of `right` (n,) given `share` (n,), minus half of `_SHRINKAGE`
    times their squared distance from `PRIOR`. The threshold withholds a share `abstain_cost` of the right
    answers.
    """
    from scipy.optimize import minimize

    columns = np.stack([_log_odds(share), np.ones(len(share))], axis=1)
    prior = np.array([PRIOR.slope, PRIOR.offset])

    def loss(weights: Floats) -> tuple[float, Floats]:
        odds, away = columns @ weights, weights - prior
        value = np.logaddexp(0, np.where(right, -odds, odds)).sum() + _SHRINKAGE / 2 * away @ away
        return float(value), columns.T @ (_logistic(odds) - right) + _SHRINKAGE * away

    slope, offset = minimize(loss, prior, jac=True).x
    fitted = Confidence(float(slope), float(offset))
    if not right.any():
        return fitted
    return replace(fitted, abstain_below=float(np.quantile(fitted.of(share)[right], abstain_cost)))


def _log_odds(share: Floats) -> Floats:
    inside = np.clip(share, _LEAST_SHARE, 1 - _LEAST_SHARE)
    return np.asarray(np.log(inside / (1 - inside)))


def _logistic(value: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(value, -60, 60))))
