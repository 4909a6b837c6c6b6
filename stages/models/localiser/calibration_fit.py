"""Fitting a calibration on images held out of the database.

Temperatures and the weight of the likeness are chosen so that the true cells of the held-out images are most
likely. An offset per group was tried too, but held-out visits fall into few classes, so it learned where
these happen to lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stages.models.localiser.calibration import Calibration, Floats, Ints, probabilities
from stages.models.localiser.cell_fusion import Fused, FusionConfig, fuse
from stages.models.localiser.confidence import fit_confidence
from stages.models.localiser.embedded import Features
from stages.models.localiser.evidence import ExemplarScores, exemplar_scores, groups_of
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import predict

LEAST_IMAGES = 30
"""With fewer held-out images nothing is fitted."""
_CLASSES_SEARCHED = 256
"""Best classes of a held-out image among which its true cell is searched."""
_SHRINKAGE = 50.0
"""Weight of the configured numbers in the fit: a hundred images of a few visits lie in few cells and must not
decide alone."""


def calibrate(
    localiser: Localiser,
    features: Features,
    positions: npt.NDArray[np.float64],
    *,
    radius_m: float,
    fusion: FusionConfig,
) -> Calibration:
    """Fit a calibration on images that the localiser was not trained on.

    `features` (n, F) are finite, n may be 0; `positions` (n, 2) are UTM metres. An answer within `radius_m`
    counts as correct.
    """
    places = localiser.places
    depth = max(1, min(len(places), max(_CLASSES_SEARCHED, fusion.candidates)))
    best = predict(localiser, features, top=depth, score="cosine")
    here = places.at(positions)
    true = best.class_id == np.where(here < 0, -2, here)[:, None]  # -2 equals no class id
    holdout = HoldoutScores(
        cosines=best.score.astype(np.float64),
        groups=groups_of(localiser, best.class_id),
        centres=best.positions,
        exemplars=exemplar_scores(localiser, features, best.class_id),
        true=np.where(true.any(axis=1), true.argmax(axis=1), -1),
        truth=positions,
    )
    return fit_calibration(holdout, group_count=localiser.classes.groups, radius_m=radius_m, fusion=fusion)


def store_calibration(
    localiser: Localiser, calibration: dict[str, Any] | None, *, radius_m: float, fusion: FusionConfig
) -> None:
    """Put calibration and fusion settings into the localiser's meta, where `answer` finds them."""
    localiser.meta["fusion"] = {"settings": asdict(fusion), "radius_m": radius_m}
    localiser.meta["calibration"] = calibration
    localiser.meta.pop("uncalibrated_since", None)


def drop_calibration(localiser: Localiser, groups: Sequence[int]) -> None:
    """Remove the calibration from the localiser's meta: it does not hold for heads trained since."""
    if localiser.meta.get("calibration") is not None:
        localiser.meta["calibration"] = None
        localiser.meta["uncalibrated_since"] = f"groups {', '.join(map(str, groups))} were trained alone"


@dataclass(frozen=True)
class HoldoutScores:
    """The best classes of images that the localiser was not trained on.

    Attributes
    ----------
    cosines, groups : ndarray, shape (n, C)
        Of each image's C best classes; cosine minus infinity and group 0 where there are fewer.
    centres : ndarray, shape (n, C, 2)
        Of their cells, metres.
    exemplars : ExemplarScores or None
        Cosines with the exemplars of each class; None without exemplars.
    true : ndarray of int64, shape (n,)
        Column of the cell that the image lies in; -1 if it is not among them.
    truth : ndarray, shape (n, 2)
        Where the images were taken, metres.
    """

    cosines: Floats
    groups: Ints
    centres: Floats
    exemplars: ExemplarScores | None
    true: Ints
    truth: Floats

    @property
    def likeness(self) -> Floats | None:
        """Likeness to each class (n, C); None without exemplars."""
        return None if self.exemplars is None else self.exemplars.likeness


def fit_calibration(
    holdout: HoldoutScores, *, group_count: int, radius_m: float, fusion: FusionConfig
) -> Calibration:
    """Return the calibration under which the true cells of held-out images are most likely.

    An answer within `radius_m` counts as correct.
    """
    configured = Calibration.configured(group_count, fusion)
    known = holdout.true >= 0
    if known.sum() < LEAST_IMAGES:
        return configured
    temperatures, weight = _fit_evidence(holdout, known, group_count, fusion)
    fitted = replace(configured, temperatures=temperatures, likeness=weight, images=len(holdout.true))
    before, after = (
        _nll(_evidence(way, holdout)[known], holdout.true[known]) for way in (configured, fitted)
    )
    confidence = fit_confidence(
        *_answered(fitted, holdout, radius_m, fusion), abstain_cost=fusion.abstain_cost
    )
    return replace(fitted, confidence=confidence, nll_before=before, nll_after=after)


def _evidence(calibration: Calibration, holdout: HoldoutScores) -> Floats:
    heads = calibration.evidence(holdout.cosines, holdout.groups)
    return calibration.add_likeness(heads, holdout.likeness)


def _answered(
    calibration: Calibration, holdout: HoldoutScores, radius_m: float, fusion: FusionConfig
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return share of the evidence and correctness of the first answers, each (n,)."""
    heads = calibration.evidence(holdout.cosines, holdout.groups)
    best = np.argsort(-heads, axis=1, kind="stable")[:, : fusion.candidates]
    evidence = np.take_along_axis(_evidence(calibration, holdout), best, axis=1)
    points = np.take_along_axis(holdout.centres, best[:, :, None], axis=1)
    fused = first_answers(evidence, points, radius_m, fusion)
    away = np.linalg.norm(fused.positions[:, 0] - holdout.truth, axis=1)
    return fused.mass[:, 0], away <= radius_m


def first_answers(evidence: Floats, points: Floats, radius_m: float, fusion: FusionConfig) -> Fused:
    """Return the fused first answer of each row of evidence (n, C) for points (n, C, 2)."""
    weights = probabilities(evidence)
    return fuse(points, weights, 1, radius_m=radius_m, edge_m=fusion.edge_m, covered=fusion.covered)


def _fit_evidence(
    holdout: HoldoutScores, known: npt.NDArray[np.bool_], group_count: int, fusion: FusionConfig
) -> tuple[tuple[float, ...], float]:
    """Return the fitted temperatures and weight of the likeness, shrunk to the configured ones."""
    scores, group, column = (
        torch.from_numpy(array[known]) for array in (holdout.cosines, holdout.groups, holdout.true)
    )
    likeness = (
        torch.zeros_like(scores) if holdout.likeness is None else torch.from_numpy(holdout.likeness[known])
    )
    # Logarithms of fitted over configured: temperature of all groups and weight; then each group's own
    # factor.
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
