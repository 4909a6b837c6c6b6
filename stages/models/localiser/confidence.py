"""How sure an answer is: the probability that it is right, fitted on images held out of the database.

It grows with the product of two. That the photo shows a place which the localiser
knows is told by its likeness to what the best classes look like; every
held-out image is shown a second time with all classes around its true place
struck out, and stands for a photo from outside. That the answer is right if
so is told by the share of the evidence it covers and by the likeness to the
classes near it; that is learnt from the held-out images as they are. Both
know something of the same, so the product's log odds are fitted once more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.models.localiser.cell_fusion import Fused

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

OUTSIDE_WEIGHT = 0.1
"""Weight of a held-out image whose classes are struck out, beside 1 for the image itself."""


@dataclass(frozen=True)
class ConfidenceFeatures:
    """What the confidence of each first answer rests on, each of shape (B,).

    Attributes
    ----------
    share : ndarray
        Log odds of the share of the evidence within the radius of the answer.
    likeness : ndarray
        To the most alike of the classes looked at.
    near : ndarray
        To the most alike of those within the radius of the answer.
    """

    share: Floats
    likeness: Floats
    near: Floats

    @classmethod
    def of(cls, fused: Fused, points: Floats, likeness: Floats, radius_m: float) -> ConfidenceFeatures:
        """Return the signs of answers made of `points` (B, C, 2) that look so alike, (B, C)."""
        share = np.clip(fused.mass[:, 0], 1e-6, 1 - 1e-6)
        away = np.linalg.norm(points - fused.positions[:, :1], axis=2)
        around = away <= radius_m
        np.put_along_axis(around, np.maximum(fused.nearest[:, :1], 0), True, axis=1)
        near = np.where(around, likeness, -1.0).max(axis=1, initial=-1.0)
        return cls(np.log(share / (1 - share)), likeness.max(axis=1, initial=-1.0), near)


@dataclass(frozen=True)
class Confidence:
    """Two logistic models, what makes one of them, and a threshold.

    Attributes
    ----------
    inside : tuple of float
        Weights of likeness and 1: log odds of showing a place that is known.
    right : tuple of float
        Weights of share, near and 1: log odds of being right, if so.
    scale : tuple of float
        Weights of the product's log odds and 1: log odds of being right.
    abstain_below : float
        An answer of less confidence is better withheld.
    """

    inside: tuple[float, float]
    right: tuple[float, float, float]
    scale: tuple[float, float]
    abstain_below: float

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Confidence:
        """Return what `to_dict` described."""
        weights = {name: tuple(content[name]) for name in ("inside", "right", "scale")}
        return cls(**weights, abstain_below=content["abstain_below"])

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-serialisable values."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    def of(self, signs: ConfidenceFeatures) -> Floats:
        """Return the probability that each first answer is right, (B,)."""
        known = _logistic(np.stack([signs.likeness, np.ones(len(signs.share))], 1) @ np.array(self.inside))
        table = np.stack([signs.share, signs.near, np.ones(len(signs.share))], 1)
        product = np.clip(known * _logistic(table @ np.array(self.right)), 1e-6, 1 - 1e-6)
        return _logistic(self.scale[0] * np.log(product / (1 - product)) + self.scale[1])


def fit_confidence(
    inside: ConfidenceFeatures, right: Bools, outside: ConfidenceFeatures, *, abstain_cost: float
) -> Confidence | None:
    """Return the models that held-out images ask for; None if none of their answers is right.

    Parameters
    ----------
    inside : ConfidenceFeatures
        Of the held-out images as they are, (n,).
    right : ndarray of bool, shape (n,)
        Whether their answers are.
    outside : ConfidenceFeatures
        Of held-out images with the classes around them struck out; none in a tiny city.
    abstain_cost : float
        Share of the right answers that the threshold may withhold.
    """
    if not right.any() or not len(outside.share):
        return None
    likeness = np.concatenate([inside.likeness, outside.likeness])[:, None]
    known = np.arange(len(likeness)) < len(right)
    weights = np.where(known, 1.0, OUTSIDE_WEIGHT)
    first = _regression(likeness, known, weights)
    second = _regression(np.stack([inside.share, inside.near], 1), right, np.ones(len(right)))
    product = Confidence((first[0], first[1]), (second[0], second[1], second[2]), (1.0, 0.0), 0.0)
    stated = np.concatenate([product.of(inside), product.of(outside)])[:, None]
    third = _regression(np.log(stated / (1 - stated)), np.append(right, known[~known]), weights)
    fitted = replace(product, scale=(third[0], third[1]))
    below = float(np.quantile(fitted.of(inside)[right], abstain_cost))
    return replace(fitted, abstain_below=below)


def _regression(signs: Floats, target: Bools, weights: Floats) -> list[float]:
    """Weights of the columns of `signs` and of 1 in the log odds of `target`."""
    from sklearn.linear_model import LogisticRegression

    if target.all():
        # Laplace's rule of succession: never failed is not "never fails".
        return [0.0] * signs.shape[1] + [float(np.log(len(target) + 1))]
    centre, spread = signs.mean(axis=0), signs.std(axis=0) + 1e-9
    model = LogisticRegression(C=1.0, max_iter=1000).fit((signs - centre) / spread, target, weights)
    slopes = model.coef_[0] / spread
    return [*slopes.tolist(), float(model.intercept_[0]) - float(slopes @ centre)]


def _logistic(value: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-np.clip(value, -60, 60)))
    return result
