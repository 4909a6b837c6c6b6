"""Confidence of an answer: the probability that it is right, and the threshold below which it is withheld.

It is made of two probabilities. The first, that the photo shows a known place, depends on its likeness to the
best classes and on its familiarity with the city. It is fitted on held-out images against the same images
without the classes around their true place, which stand for photos from outside. The second, that the answer
is right if the place is known, depends on the share of the evidence it covers and on the likeness to the
classes near it. Because the two are not independent, the log odds of their product are fitted once more.
Answers are withheld for low familiarity (`stages.models.localiser.familiarity`). Localisers without it, such
as those without exemplars, withhold answers of low confidence; the threshold costs a configured share of the
right answers (`eval.fusion.abstain_cost`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.models.localiser.cell_fusion import Fused

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_LEAST_SPREAD = 1e-6
OUTSIDE_WEIGHT = 0.1
"""Weight of a held-out image whose classes are removed; the image itself has weight 1."""


@dataclass(frozen=True)
class ConfidenceFeatures:
    """What the confidence of each first answer is computed from, each of shape (B,).

    Attributes
    ----------
    share : ndarray
        Log odds of the share of the evidence within the radius of the answer.
    likeness : ndarray
        Highest likeness to any candidate class.
    near : ndarray
        Highest likeness to a candidate class within the radius of the answer.
    familiarity : ndarray
        Whether the photo shows this city; 0 if that is unknown.
    """

    share: Floats
    likeness: Floats
    near: Floats
    familiarity: Floats

    @classmethod
    def of(
        cls, fused: Fused, points: Floats, likeness: Floats, familiarity: Floats, radius_m: float
    ) -> ConfidenceFeatures:
        """Return the features of answers fused from `points` (B, C, 2) with `likeness` (B, C)."""
        share = np.clip(fused.mass[:, 0], 1e-6, 1 - 1e-6)
        away = np.linalg.norm(points - fused.positions[:, :1], axis=2)
        around = away <= radius_m
        np.put_along_axis(around, np.maximum(fused.nearest[:, :1], 0), True, axis=1)
        near = np.where(around, likeness, -1.0).max(axis=1, initial=-1.0)
        return cls(np.log(share / (1 - share)), likeness.max(axis=1, initial=-1.0), near, familiarity)


@dataclass(frozen=True)
class Confidence:
    """Three logistic models and the threshold below which an answer is withheld.

    Attributes
    ----------
    inside : tuple of float
        Weights of likeness and 1: log odds that the place is known.
    right : tuple of float
        Weights of share, near and 1: log odds that the answer is right, if the place is known.
    scale : tuple of float
        Weights of the product's log odds and 1: log odds that the answer is right.
    abstain_below : float
        Answers of lower confidence are withheld, if the localiser knows no familiarity.
    familiar : float
        Weight of familiarity beside `inside`.
    """

    inside: tuple[float, float]
    right: tuple[float, float, float]
    scale: tuple[float, float]
    abstain_below: float
    familiar: float = 0.0

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Confidence:
        """Return the models that `to_dict` described."""
        weights = {name: tuple(content[name]) for name in ("inside", "right", "scale")}
        return cls(**weights, abstain_below=content["abstain_below"], familiar=content.get("familiar", 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    def of(self, features: ConfidenceFeatures) -> Floats:
        """Return the probability that each first answer is right, (B,)."""
        ones = np.ones(len(features.share))
        odds = np.stack([features.likeness, ones], 1) @ np.array(self.inside)
        known = _logistic(odds + self.familiar * features.familiarity)
        table = np.stack([features.share, features.near, ones], 1)
        product = np.clip(known * _logistic(table @ np.array(self.right)), 1e-6, 1 - 1e-6)
        return _logistic(self.scale[0] * np.log(product / (1 - product)) + self.scale[1])


def fit_confidence(
    inside: ConfidenceFeatures, right: Bools, outside: ConfidenceFeatures, *, abstain_cost: float
) -> Confidence | None:
    """Fit the models on held-out images; None if none of their answers is right.

    `inside` describes the images as they are and `right` (n,) whether their answers are; `outside` describes
    them with the classes around them removed, if there are others. The threshold withholds a share
    `abstain_cost` of the right answers.
    """
    if not right.any() or not len(outside.share):
        return None
    alike = np.concatenate([
        np.stack([some.likeness, some.familiarity], 1) for some in (inside, outside)
    ])  # fmt: skip
    known = np.arange(len(alike)) < len(right)
    weights = np.where(known, 1.0, OUTSIDE_WEIGHT)
    first = _regression(alike, known, weights)
    second = _regression(np.stack([inside.share, inside.near], 1), right, np.ones(len(right)))
    product = Confidence(
        (first[0], first[2]), (second[0], second[1], second[2]), (1.0, 0.0), 0.0, familiar=first[1]
    )
    stated = np.concatenate([product.of(inside), product.of(outside)])[:, None]
    third = _regression(np.log(stated / (1 - stated)), np.append(right, known[~known]), weights)
    fitted = replace(product, scale=(third[0], third[1]))
    below = float(np.quantile(fitted.of(inside)[right], abstain_cost))
    return replace(fitted, abstain_below=below)


def _regression(columns: Floats, target: Bools, weights: Floats) -> list[float]:
    """Return the weights of the columns and of 1 in the log odds of `target`."""
    from sklearn.linear_model import LogisticRegression

    if target.all():
        # Laplace's rule of succession: no failure so far does not mean no failure ever.
        return [0.0] * columns.shape[1] + [float(np.log(len(target) + 1))]
    centre, spread = columns.mean(axis=0), columns.std(axis=0) + 1e-9
    spread[spread < _LEAST_SPREAD] = np.inf  # a column that is constant here gets weight 0
    model = LogisticRegression(C=1.0, max_iter=1000).fit((columns - centre) / spread, target, weights)
    slopes = model.coef_[0] / spread
    return [*slopes.tolist(), float(model.intercept_[0]) - float(slopes @ centre)]


def _logistic(value: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-np.clip(value, -60, 60)))
    return result
