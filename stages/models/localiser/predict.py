"""Predictions of a localiser, and answers with a confidence made of the evidence of all groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from stages.errors import InputError
from stages.models.localiser.calibration import Calibration, HeldOut, fit, probabilities, required, weigh
from stages.models.localiser.cell_fusion import FusionConfig, fuse
from stages.models.localiser.confidence import ConfidenceFeatures
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.scoring import Score, best_scores
from stages.models.localiser.topk import Predictions

_LOOKED_AT = 256
"""Best classes of a held-out image among which its true cell is looked for."""

_SHORTLIST = 64
"""Classes that share the calibrated probability."""

Features = Tensor | npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Answers:
    """Where each query was taken, best guess first: the evidence of all groups taken together.

    Attributes
    ----------
    positions : ndarray of float64, shape (B, top, 2)
        UTM east and north in metres; NaN where no evidence is left.
    mass : ndarray of float64, shape (B, top)
        Share of the evidence that each answer adds.
    class_id : ndarray of int64, shape (B, top)
        The place nearest to each answer, as in `Predictions`; -1 for none.
    confidence : ndarray of float64, shape (B,)
        Probability that the first answer is right; NaN if that is not calibrated.
    abstain : ndarray of bool, shape (B,)
        Whether the photo rather shows no place that the localiser knows.
    """

    positions: npt.NDArray[np.float64]
    mass: npt.NDArray[np.float64]
    class_id: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    abstain: npt.NDArray[np.bool_]


def predict(localiser: Localiser, features: Features, *, top: int, score: Score) -> Predictions:
    """Return the best `top` places of each feature over all groups, eq. 4.20 and 4.21.

    Parameters
    ----------
    localiser : Localiser
        The trained localiser.
    features : Tensor or ndarray, shape (B, F)
        Finite features, made by the localiser's recipe and joined in the order of its inputs.
    top : int
        How many places to return.
    score : {"softmax", "cosine", "calibrated"}
        What is compared across groups: the probability within the class's own group (4.16), the cosine to
        its prototype (4.13), or the probability after dividing by each group's temperature. Where several
        classes speak for a place, the best of them or their (geometric) mean counts.

    Raises
    ------
    InputError
        If a feature has the wrong length or is not finite, or a calibrated score is asked for without a
        calibration.
    """
    calibration = required(localiser.calibration) if score == "calibrated" else None
    depth = top if calibration is None else max(top, _SHORTLIST)
    class_id, scores = best_scores(localiser, features, depth, score, calibration)
    if calibration is not None:
        scores = np.where(class_id >= 0, probabilities(scores), -np.inf)
    class_id = class_id[:, :top]
    return Predictions(class_id, scores[:, :top].astype(np.float32), localiser.positions_of(class_id))


def answer(
    localiser: Localiser,
    features: Features,
    *,
    top: int,
    fusion: FusionConfig | None = None,
    radius_m: float | None = None,
) -> Answers:
    """Return up to `top` positions of each feature, from the evidence of all groups together.

    Parameters
    ----------
    localiser : Localiser
        Its meta says how, unless the settings below do.
    features : Tensor or ndarray, shape (B, F)
        As for `predict`.
    top : int
        How many answers to give.
    fusion : FusionConfig, optional
        Other settings than those it was trained with.
    radius_m : float, optional
        Another radius.

    Raises
    ------
    InputError
        If a feature has the wrong length or is not finite, or if the localiser
        was trained without settings and none are given.
    """
    noted = localiser.meta.get("fusion")
    if noted is not None:
        fusion, radius_m = fusion or FusionConfig(**noted["settings"]), radius_m or noted["radius_m"]
    if fusion is None or radius_m is None:
        raise InputError("the localiser does not say how to fuse evidence: run `pipeline train-heads` again")
    calibration = localiser.calibration or Calibration.plain(localiser.classes.groups, fusion)
    seen = look(localiser, features, top=fusion.candidates, calibration=calibration)
    points, weights = localiser.positions_of(seen.class_id), probabilities(seen.evidence)
    fused = fuse(points, weights, top, radius_m=radius_m, edge_m=fusion.edge_m, covered=fusion.covered)
    confidence = calibration.confidences(ConfidenceFeatures.of(fused, points, seen.likeness, radius_m))
    below = 0.0 if calibration.confidence is None else calibration.confidence.abstain_below
    near = np.take_along_axis(seen.class_id, np.maximum(fused.nearest, 0), axis=1)
    near = np.where(fused.nearest >= 0, near, -1)
    return Answers(fused.positions, fused.mass, near, confidence, confidence < below)


@dataclass(frozen=True)
class ScoredClasses:
    """The classes that the heads hold best, and all that speaks for them; each of shape (B, top).

    Attributes
    ----------
    class_id : ndarray of int64
        In the order of the heads' evidence; -1 where there are fewer classes.
    evidence : ndarray of float64
        Log probability up to a constant; minus infinity where there is no class.
    likeness : ndarray of float64
        To the class's exemplars, or without these to its prototype; -1 where there is no class.
    """

    class_id: npt.NDArray[np.int64]
    evidence: npt.NDArray[np.float64]
    likeness: npt.NDArray[np.float64]


def look(localiser: Localiser, features: Features, *, top: int, calibration: Calibration) -> ScoredClasses:
    """Return the best `top` classes of each feature with their evidence, from heads and exemplars."""
    class_id, heads = best_scores(localiser, features, top, "calibrated", calibration)
    cosines = heads * np.array(calibration.temperatures)[_groups(localiser, class_id)]
    evidence, likeness = weigh(calibration, heads, cosines, _likeness(localiser, features, class_id))
    return ScoredClasses(class_id, evidence, np.where(class_id >= 0, likeness, -1.0))


def calibrate(
    localiser: Localiser,
    features: Features,
    positions: npt.NDArray[np.float64],
    *,
    radius_m: float,
    fusion: FusionConfig,
) -> Calibration:
    """Return the calibration fitted on images that the localiser was not trained on.

    Parameters
    ----------
    localiser : Localiser
        Trained without these images.
    features : Tensor or ndarray, shape (n, F)
        Of the held-out images, finite; n may be 0.
    positions : ndarray of float64, shape (n, 2)
        Where they were taken, UTM metres.
    radius_m : float
        An answer this near is right.
    fusion : FusionConfig
        How answers are made.
    """
    places = localiser.places
    depth = max(1, min(len(places), max(_LOOKED_AT, fusion.candidates)))
    found = predict(localiser, features, top=depth, score="cosine")
    true = found.class_id == _place_at(localiser, positions)[:, None]
    held = HeldOut(
        cosines=found.score.astype(np.float64),
        groups=_groups(localiser, found.class_id),
        centres=found.positions,
        likeness=_likeness(localiser, features, found.class_id),
        true=np.where(true.any(axis=1), true.argmax(axis=1), -1),
        truth=positions,
    )
    clearance_m = radius_m + places.cell_m * int(places.span.max(initial=1))
    groups = localiser.classes.groups
    return fit(held, group_count=groups, clearance_m=clearance_m, radius_m=radius_m, fusion=fusion)


def note(
    localiser: Localiser, calibration: dict[str, Any] | None, *, radius_m: float, fusion: FusionConfig
) -> None:
    """Put what answers need into the localiser's meta, for `save`; the calibration may be None."""
    localiser.meta["fusion"] = {"settings": asdict(fusion), "radius_m": radius_m}
    localiser.meta["calibration"] = calibration
    localiser.meta.pop("uncalibrated_since", None)


def drop_calibration(localiser: Localiser, groups: Sequence[int]) -> None:
    """Take the calibration out of the localiser's meta: it knows nothing of heads trained since."""
    if localiser.meta.get("calibration") is not None:
        localiser.meta["calibration"] = None
        localiser.meta["uncalibrated_since"] = f"groups {', '.join(map(str, groups))} were trained alone"


def _likeness(
    localiser: Localiser, features: Features, place_id: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64] | None:
    """Return the likeness to each place's exemplars, (B, C); None without exemplars."""
    if localiser.exemplars is None:
        return None
    return localiser.exemplars.likeness(features[:, : localiser.pooled_length], place_id)


def _groups(localiser: Localiser, class_id: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    if not len(localiser.places):
        return np.zeros_like(class_id)
    return localiser.places.group[np.maximum(class_id, 0)].astype(np.int64)


def _place_at(localiser: Localiser, positions: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the place that each position lies in, -2 (no place at all) if none is."""
    place = localiser.places.at(positions)
    return np.where(place < 0, -2, place)
