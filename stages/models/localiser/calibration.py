"""From cosines of several heads to probabilities: what is fitted on images held out of the database.

Cosines of different groups are not alike: a group with more classes, or
classes nearer to each other, has other winners. Evidence is the cosine over
its group's temperature, and the likeness to the class's exemplars times a
weight, so that one softmax over the classes of all groups gives the held-out
images' true cells the highest probability. An offset per group was tried too:
held-out visits fall into few classes, so it learned where those happen to lie.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stages.errors import InputError
from stages.models.localiser.cell_fusion import Fused, FusionConfig, fuse
from stages.models.localiser.confidence import Confidence, ConfidenceFeatures, fit_confidence

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAST_IMAGES = 30
"""Fewer held-out images than this calibrate nothing."""
_SHRINKAGE = 50.0
"""Of logarithms, of a group's temperature over the common one and of what is common over what is
configured: a hundred images in whole visits lie in few cells, and must not decide alone."""


@dataclass(frozen=True)
class Calibration:
    """What turns cosines into probabilities and answers into confidences.

    Attributes
    ----------
    temperatures : tuple of float
        Per group: a class's evidence is its cosine divided by it,
    likeness : float
        and this times the likeness to its exemplars.
    confidence : Confidence or None
        None if too few images were held out, or their answers were all alike.
    images : int
        Held-out images this rests on; 0: only the configured temperature.
    nll_before, nll_after : float or None
        Mean negative log likelihood of the true cells, with the configured
        temperature and with what was fitted.
    """

    temperatures: tuple[float, ...]
    likeness: float
    confidence: Confidence | None
    images: int
    nll_before: float | None
    nll_after: float | None

    @classmethod
    def plain(cls, groups: int, fusion: FusionConfig) -> Calibration:
        """Return the one that stands in where nothing could be fitted."""
        return cls((fusion.temperature,) * groups, fusion.likeness, None, 0, None, None)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Calibration:
        """Return the calibration that `to_dict` described."""
        confidence = content["confidence"]
        confidence = None if confidence is None else Confidence.from_dict(confidence)
        return cls(**{**content, "temperatures": tuple(content["temperatures"]), "confidence": confidence})

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-serialisable values."""
        confidence = None if self.confidence is None else self.confidence.to_dict()
        return {**asdict(self), "temperatures": list(self.temperatures), "confidence": confidence}

    def evidence(self, cosines: Floats, groups: npt.NDArray[np.integer[Any]]) -> Floats:
        """Return the heads' unnormalised log probability of classes, given their cosines and groups."""
        evidence: Floats = cosines / np.array(self.temperatures)[groups]
        return evidence

    def confidences(self, signs: ConfidenceFeatures) -> Floats:
        """Return the probability that each first answer is right; NaN where that was not fitted."""
        return np.full(len(signs.share), np.nan) if self.confidence is None else self.confidence.of(signs)


def required(calibration: Calibration | None) -> Calibration:
    """Return the calibration.

    Raises
    ------
    InputError
        If there is none.
    """
    if calibration is None:
        raise InputError(
            "the localiser is not calibrated: train all groups with train.validation.share above 0, "
            "or set eval.score to cosine"
        )
    return calibration


def probabilities(evidence: Floats) -> Floats:
    """Return the softmax of each row; minus infinity is no evidence at all."""
    best = evidence.max(axis=1, keepdims=True, initial=-np.inf)
    weights = np.exp(evidence - np.where(np.isfinite(best), best, 0.0))
    total = weights.sum(axis=1, keepdims=True)
    return weights / np.where(total > 0, total, 1)


@dataclass(frozen=True)
class HeldOut:
    """What a localiser says of images that it was not trained on.

    Attributes
    ----------
    cosines, groups : ndarray, shape (n, K)
        Of each image's best classes, any number; cosine minus infinity (group 0) where there is none.
    centres : ndarray, shape (n, K, 2)
        Of their cells, metres.
    likeness : ndarray, shape (n, K), or None
        To the exemplars of each; None where there are no exemplars.
    true : ndarray of int64, shape (n,)
        Which column is the cell that the image lies in; -1 if none is.
    truth : ndarray, shape (n, 2)
        Where the images were taken.
    """

    cosines: Floats
    groups: Ints
    centres: Floats
    likeness: Floats | None
    true: Ints
    truth: Floats


def fit(
    held: HeldOut, *, group_count: int, clearance_m: float, radius_m: float, fusion: FusionConfig
) -> Calibration:
    """Return the calibration that held-out images ask for.

    Parameters
    ----------
    held : HeldOut
        The images.
    group_count : int
        Number of groups.
    clearance_m : float
        Classes with a centre this near to the truth are struck out to show what an outside image looks like.
    radius_m : float
        An answer this near is right.
    fusion : FusionConfig
        How answers are made.
    """
    plain = Calibration.plain(group_count, fusion)
    known = held.true >= 0
    if known.sum() < LEAST_IMAGES:
        return plain
    temperatures, weight = _fit_evidence(held, known, group_count, fusion)
    fitted = Calibration(temperatures, weight, None, len(held.true), None, None)
    before, after = (_nll(_evidence(way, held)[known], held.true[known]) for way in (plain, fitted))
    away = np.linalg.norm(held.centres - held.truth[:, None], axis=2)
    inside, right = _answered(fitted, held, away < np.inf, radius_m, fusion)
    outside, _ = _answered(fitted, held, away > clearance_m, radius_m, fusion)
    confidence = fit_confidence(inside, right, outside, abstain_cost=fusion.abstain_cost)
    return Calibration(temperatures, weight, confidence, len(held.true), before, after)


def weigh(
    calibration: Calibration, evidence: Floats, cosines: Floats, likeness: Floats | None
) -> tuple[Floats, Floats]:
    """Return the whole evidence of classes, and how alike they are: their cosines without exemplars."""
    if likeness is None:
        return evidence, cosines
    return evidence + calibration.likeness * likeness, likeness


def _evidence(calibration: Calibration, held: HeldOut) -> Floats:
    heads = calibration.evidence(held.cosines, held.groups)
    return weigh(calibration, heads, held.cosines, held.likeness)[0]


def _answered(
    calibration: Calibration,
    held: HeldOut,
    shown: npt.NDArray[np.bool_],
    radius_m: float,
    fusion: FusionConfig,
) -> tuple[ConfidenceFeatures, npt.NDArray[np.bool_]]:
    """Signs of the fused first answers if only the classes `shown` (n, K) existed, and which are right."""
    heads = np.where(shown, calibration.evidence(held.cosines, held.groups), -np.inf)
    some = np.isfinite(heads).any(axis=1)
    best = np.argsort(-heads[some], axis=1, kind="stable")[:, : fusion.candidates]

    def of_best(values: Floats) -> Floats:
        return np.take_along_axis(values[some], best, axis=1)

    likeness = None if held.likeness is None else of_best(held.likeness)
    evidence, likeness = weigh(calibration, of_best(heads), of_best(held.cosines), likeness)
    points = np.take_along_axis(held.centres[some], best[:, :, None], axis=1)
    fused = first_answers(evidence, points, radius_m, fusion)
    signs = ConfidenceFeatures.of(fused, points, np.where(np.isfinite(evidence), likeness, -1.0), radius_m)
    away = np.linalg.norm(fused.positions[:, 0] - held.truth[some], axis=1)
    return signs, away <= radius_m


def first_answers(evidence: Floats, points: Floats, radius_m: float, fusion: FusionConfig) -> Fused:
    """Return the fused first answer of each row of evidence (n, C) for points (n, C, 2)."""
    weights = probabilities(evidence)
    return fuse(points, weights, 1, radius_m=radius_m, edge_m=fusion.edge_m, covered=fusion.covered)


def _fit_evidence(
    held: HeldOut, known: npt.NDArray[np.bool_], group_count: int, fusion: FusionConfig
) -> tuple[tuple[float, ...], float]:
    """Temperatures and weight of the likeness that make true cells most likely, shrunk to the configured."""
    scores, group, column = (
        torch.from_numpy(array[known]) for array in (held.cosines, held.groups, held.true)
    )
    likeness = torch.zeros_like(scores) if held.likeness is None else torch.from_numpy(held.likeness[known])
    # Logarithms over the configured: of the common temperature and the weight, and of each group's own.
    shared = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    own = torch.zeros(group_count, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([shared, own], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        inverse = torch.exp(-shared[0] - own) / fusion.temperature
        evidence = scores * inverse[group] + fusion.likeness * torch.exp(shared[1]) * likeness
        value = torch.nn.functional.cross_entropy(evidence, column, reduction="sum")
        value = value + _SHRINKAGE * (shared.square().sum() + own.square().sum())
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    temperatures: list[float] = (fusion.temperature * torch.exp(shared[0] + own)).detach().tolist()
    return tuple(temperatures), fusion.likeness * float(torch.exp(shared[1].detach()))


def _nll(evidence: Floats, true: Ints) -> float:
    chosen = np.take_along_axis(probabilities(evidence), true[:, None], axis=1)
    return float(-np.log(np.maximum(chosen, 1e-300)).mean())
