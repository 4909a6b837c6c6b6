"""From cosines of several heads to probabilities: what is fitted on images held out of the database.

Cosines of different groups are not alike: a group with more classes, or
classes nearer to each other, has other winners. Evidence is the cosine over
its group's temperature, so that one softmax over the cells of all groups
gives the held-out images' true cells the highest probability. Within a group
the order of the classes stays as it was. An offset per group was tried too:
held-out visits fall into few classes, so it learned where those happen to lie.

The confidence of an answer is the probability that it lies within the
radius. The distribution over cells alone cannot say "none of these", so the
best cosine joins it, and every held-out image is shown a second time with all
cells around its true place struck out: what answers look like when the
truth is not on offer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stages.fusion import FusionConfig, fuse

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAST_IMAGES = 30
"""Fewer held-out images than this calibrate nothing."""
OUTSIDE_WEIGHT = 0.1
"""Weight of a held-out image whose cells are struck out, beside 1 for the image itself."""
_SHRINKAGE = 50.0
"""Of a group's log temperature towards the common one: more than 10 % apart takes many images to show."""


@dataclass(frozen=True)
class Calibration:
    """What turns cosines into probabilities and answers into confidences.

    Attributes
    ----------
    temperatures : tuple of float
        Per group: evidence is the cosine divided by it.
    confidence : tuple of float or None
        Weights of log odds of the covered share, best cosine and 1; the
        confidence is the logistic function of their sum. None if too few
        images were held out, or none was answered rightly.
    abstain_below : float
        An answer of less confidence is better withheld; 0 without `confidence`.
    images : int
        Held-out images this rests on; 0: only the configured temperature.
    nll_before, nll_after : float or None
        Mean negative log likelihood of the true cells, with the configured
        temperature and with the fitted ones.
    """

    temperatures: tuple[float, ...]
    confidence: tuple[float, float, float] | None
    abstain_below: float
    images: int
    nll_before: float | None
    nll_after: float | None

    @classmethod
    def plain(cls, groups: int, fusion: FusionConfig) -> Calibration:
        """Return the one that stands in where nothing could be fitted."""
        return cls((fusion.temperature,) * groups, None, 0.0, 0, None, None)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Calibration:
        """Return the calibration that `to_dict` described."""
        confidence = content["confidence"]
        confidence = None if confidence is None else tuple(confidence)
        return cls(**{**content, "temperatures": tuple(content["temperatures"]), "confidence": confidence})

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-serialisable values."""
        content = asdict(self)
        content["temperatures"] = list(self.temperatures)
        content["confidence"] = None if self.confidence is None else list(self.confidence)
        return content

    def evidence(self, cosines: Floats, groups: npt.NDArray[np.integer[Any]]) -> Floats:
        """Return the unnormalised log probability of classes, given their cosines and groups."""
        evidence: Floats = cosines / np.array(self.temperatures)[groups]
        return evidence

    def cosines(self, evidence: Floats, groups: npt.NDArray[np.integer[Any]]) -> Floats:
        """Return the cosines that `evidence` was made of."""
        cosines: Floats = evidence * np.array(self.temperatures)[groups]
        return cosines

    def confidences(self, mass: Floats, cosine: Floats) -> Floats:
        """Return the probability that each first answer is right; NaN where that was not fitted.

        Parameters
        ----------
        mass : ndarray, shape (B,)
            Share of the evidence within the radius of the answer.
        cosine : ndarray, shape (B,)
            The best cosine of any class.
        """
        if self.confidence is None:
            return np.full(len(mass), np.nan)
        return _logistic(_signs(mass, cosine) @ np.array(self.confidence))


def probabilities(evidence: Floats) -> Floats:
    """Return the softmax of each row; minus infinity is no evidence at all."""
    best = evidence.max(axis=1, keepdims=True, initial=-np.inf)
    weights = np.exp(evidence - np.where(np.isfinite(best), best, 0.0))
    total = weights.sum(axis=1, keepdims=True)
    return weights / np.where(total > 0, total, 1)


def fit(
    cosines: Floats,
    groups: Ints,
    centres: Floats,
    true: Ints,
    truth: Floats,
    *,
    group_count: int,
    clearance_m: float,
    radius_m: float,
    fusion: FusionConfig,
) -> Calibration:
    """Return the calibration that held-out images ask for.

    Parameters
    ----------
    cosines, groups : ndarray, shape (n, K)
        Of each image's best classes, any number; cosine minus infinity (group 0) where there is none.
    centres : ndarray, shape (n, K, 2)
        Of their cells, metres.
    true : ndarray of int64, shape (n,)
        Which column is the cell that the image lies in; -1 if none is.
    truth : ndarray, shape (n, 2)
        Where the images were taken.
    group_count : int
        Number of groups.
    clearance_m : float
        Cells with a centre this near to the truth are struck out to show what an outside image looks like.
    radius_m : float
        An answer this near is right.
    fusion : FusionConfig
        How answers are made.
    """
    plain = Calibration.plain(group_count, fusion)
    known = true >= 0
    if known.sum() < LEAST_IMAGES:
        return plain
    temperatures = _fit_groups(cosines[known], groups[known], true[known], group_count, fusion)
    fitted = Calibration(temperatures, None, 0.0, len(true), None, None)
    before, after = (_nll(way.evidence(cosines, groups)[known], true[known]) for way in (plain, fitted))
    evidence = fitted.evidence(cosines, groups)
    outside = np.where(np.linalg.norm(centres - truth[:, None], axis=2) <= clearance_m, -np.inf, evidence)
    signs, right = [], []
    for shown in (evidence, outside):
        some = np.isfinite(shown).any(axis=1)
        answers = first_answers(shown[some], centres[some], radius_m, fusion)
        best = np.where(np.isfinite(shown[some]), cosines[some], -np.inf).max(axis=1)
        signs.append(_signs(answers[1], best))
        right.append(np.linalg.norm(answers[0] - truth[some], axis=1) <= radius_m)
    weights, abstain_below = _fit_confidence(signs, right)
    return Calibration(temperatures, weights, abstain_below, len(true), before, after)


def first_answers(
    evidence: Floats, centres: Floats, radius_m: float, fusion: FusionConfig
) -> tuple[Floats, Floats]:
    """Return the fused first answer of each row, (n, 2), and the share of evidence it covers, (n,)."""
    best = np.argsort(-evidence, axis=1, kind="stable")[:, : fusion.candidates]
    weights = probabilities(np.take_along_axis(evidence, best, axis=1))
    points = np.take_along_axis(centres, best[:, :, None], axis=1)
    found = fuse(points, weights, 1, radius_m=radius_m, edge_m=fusion.edge_m)
    return found.positions[:, 0], found.mass[:, 0]


def _fit_groups(
    cosines: Floats, groups: Ints, true: Ints, group_count: int, fusion: FusionConfig
) -> tuple[float, ...]:
    """Temperatures that maximise the likelihood of the true cells, shrunk to a common one."""
    scores, group, column = torch.from_numpy(cosines), torch.from_numpy(groups), torch.from_numpy(true)
    common = torch.tensor([float(np.log(fusion.temperature))], dtype=torch.float64, requires_grad=True)
    own = torch.zeros(group_count, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([common, own], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        evidence = scores * torch.exp(-common - own)[group]
        value = torch.nn.functional.cross_entropy(evidence, column, reduction="sum")
        value = value + _SHRINKAGE * own.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    temperatures: list[float] = torch.exp(common + own).detach().tolist()
    return tuple(temperatures)


def _nll(evidence: Floats, true: Ints) -> float:
    chosen = np.take_along_axis(probabilities(evidence), true[:, None], axis=1)
    return float(-np.log(np.maximum(chosen, 1e-300)).mean())


def _signs(mass: Floats, cosine: Floats) -> Floats:
    share = np.clip(mass, 1e-6, 1 - 1e-6)
    return np.stack([np.log(share / (1 - share)), cosine, np.ones(len(mass))], axis=1)


def _fit_confidence(
    signs: list[Floats], right: list[npt.NDArray[np.bool_]]
) -> tuple[tuple[float, float, float] | None, float]:
    """Logistic regression over held-out images as they are and as outsiders; and the best threshold."""
    from sklearn.linear_model import LogisticRegression

    target = np.concatenate(right)
    if target.all() or not target.any():
        return None, 0.0
    table = np.concatenate(signs)[:, :2]
    weight = np.repeat([1.0, OUTSIDE_WEIGHT], [len(right[0]), len(right[1])])
    centre, spread = table.mean(axis=0), table.std(axis=0) + 1e-9
    model = LogisticRegression(C=1.0, max_iter=1000).fit(
        (table - centre) / spread, target, sample_weight=weight
    )
    slopes = model.coef_[0] / spread
    fitted = np.array([*slopes, float(model.intercept_[0]) - float(slopes @ centre)])
    inside, outside = (_logistic(part @ fitted) for part in signs)
    places = np.unique(np.concatenate([inside, outside]))
    kept = np.searchsorted(np.sort(inside), places) / len(inside)
    dropped = np.searchsorted(np.sort(outside), places) / len(outside)
    first, second, third = fitted.tolist()
    return (first, second, third), float(places[np.argmax(dropped - kept)])


def _logistic(value: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-np.clip(value, -60, 60)))
    return result
