"""Results of a localiser: ranked places (`predict`), or fused positions with confidence (`answer`)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from stages.errors import InputError
from stages.models.localiser.calibration import probabilities, require_calibration
from stages.models.localiser.cell_fusion import Fused, FusionConfig, fuse
from stages.models.localiser.embedded import Features
from stages.models.localiser.evidence import calibration_for, score_classes, withheld_answers
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.scoring import Score, best_scores
from stages.models.localiser.walk import Motion, WalkTimes, walk_posterior

_SHORTLIST = 64
"""Best classes over which a calibrated score is normalised."""

_WALK_CANDIDATES = 64
"""Places per photo of a walk: the right one need not be among the best of each photo alone."""


@dataclass(frozen=True)
class Predictions:
    """The best places of each query, best first; in a grid these are the classes.

    Attributes
    ----------
    class_id : ndarray of int64, shape (B, top)
        Rows of the classes table, or of `Places` where several classes cover one place; -1 where there are
        fewer.
    score : ndarray of float32, shape (B, top)
        Probability within the class's group, cosine, or calibrated probability
        among the best classes of all groups; minus infinity where there is no class.
    positions : ndarray of float64, shape (B, top, 2)
        UTM east and north of the cells' centres in metres (4.21); NaN where there is no class.
    """

    class_id: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    positions: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """Positions of each query, best first, from the evidence of all groups together.

    Attributes
    ----------
    positions : ndarray of float64, shape (B, top, 2)
        UTM east and north in metres; NaN where no evidence is left.
    mass : ndarray of float64, shape (B, top)
        Share of the evidence that each answer adds.
    class_id : ndarray of int64, shape (B, top)
        The place nearest to each answer, as in `Predictions`; -1 for none.
    confidence : ndarray of float64, shape (B,)
        Probability that the first answer is right; NaN if that is not calibrated for this radius and fusion.
    abstain : ndarray of bool, shape (B,)
        Whether to withhold the answer, because no photo of this city looks like the photo.
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
    features : Tensor, ndarray or Embedded, shape (B, F) or (B, V, F)
        Finite features, made by the localiser's recipe and joined in the order of its inputs. The evidence
        of several views of a query, such as crops, is averaged.
    top : int
        How many places to return.
    score : {"softmax", "cosine", "calibrated"}
        What is compared across groups: the probability within the class's own group (4.16), the cosine to
        its prototype (4.13), or the probability after dividing by each group's temperature. A place covered
        by several classes gets the best of their scores or the (geometric) mean.

    Raises
    ------
    InputError
        If a feature has the wrong length or is not finite, or a calibrated score is asked for without a
        calibration.
    """
    calibration = require_calibration(localiser.calibration) if score == "calibrated" else None
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
    prior: npt.NDArray[np.float64] | None = None,
    photos: int = 1,
) -> Answers:
    """Return up to `top` positions of each feature, from the evidence of all groups together.

    Parameters
    ----------
    localiser : Localiser
        Its meta holds the settings used unless others are given.
    features : Tensor or ndarray, shape (B, F) or (B, V, F)
        As for `predict`.
    top : int
        How many answers to give.
    fusion : FusionConfig, optional
        Other settings than those it was trained with.
    radius_m : float, optional
        Another radius.
    prior : ndarray of float64, shape (places,), optional
        Log weight of each place; minus infinity for one that is no answer.
    photos : int
        How many photos of one spot the views of each feature show.

    Raises
    ------
    InputError
        If a feature has the wrong length or is not finite, or if the localiser
        was trained without settings and none are given.
    """
    fusion, radius_m = _fusion_settings(localiser, fusion, radius_m)
    calibration = calibration_for(localiser, fusion)
    best = score_classes(
        localiser, features, top=fusion.candidates, calibration=calibration, prior=prior, photos=photos
    )
    points, weights = localiser.positions_of(best.class_id), probabilities(best.evidence)
    fused = fuse(points, weights, top, radius_m=radius_m, edge_m=fusion.edge_m, covered=fusion.covered)
    confidence = calibration.confidence.of(fused.mass[:, 0])
    if confidence_mismatch(localiser, fusion, radius_m):
        confidence = np.full_like(confidence, np.nan)
    withheld = withheld_answers(localiser, best.familiarity, confidence)
    nearest = _nearest(best.class_id, fused)
    return Answers(fused.positions, fused.mass, nearest, confidence, withheld)


def answer_walks(
    localiser: Localiser,
    features: Features,
    times: WalkTimes,
    *,
    top: int,
    fusion: FusionConfig | None = None,
    radius_m: float | None = None,
    prior: npt.NDArray[np.float64] | None = None,
) -> Answers:
    """Return up to `top` positions of each photo, given the other photos of its walk.

    Only features, times and sessions are used, never where the photos were taken. The confidence is the
    share of the evidence within the radius of the first answer; that of a photo without others on its walk
    is that of `answer`. No answer is withheld.

    Parameters
    ----------
    localiser, features, top, fusion, radius_m, prior
        As for `answer`.
    times : WalkTimes
        When each photo was taken, and on which walk.
    """
    fusion, radius_m = _fusion_settings(localiser, fusion, radius_m)
    calibration = calibration_for(localiser, fusion)
    candidates = max(fusion.candidates, _WALK_CANDIDATES)
    best = score_classes(localiser, features, top=candidates, calibration=calibration, prior=prior)
    points, weights = localiser.positions_of(best.class_id), np.zeros_like(best.evidence)
    motion = Motion(times.speed_m_s, localiser.classes.cell_m**2, len(localiser.places))
    for rows in times.walks:
        walk = (points[rows], best.evidence[rows], times.seconds[rows])
        weights[rows] = walk_posterior(*walk, motion, times.look_at)
    # The walk leaves few places with any weight, and the time of `fuse` grows with their number squared.
    kept = np.argsort(-weights, axis=1, kind="stable")[:, : fusion.candidates]
    points = np.take_along_axis(points, kept[:, :, None], axis=1)
    weights = np.take_along_axis(weights, kept, axis=1)
    class_id = np.take_along_axis(best.class_id, kept, axis=1)
    fused = fuse(points, weights, top, radius_m=radius_m, edge_m=fusion.edge_m, covered=fusion.covered)
    confidence = fused.mass[:, 0].clip(0, 1)
    alone = np.concatenate([rows for rows in times.walks if len(rows) == 1] or [np.zeros(0, np.int64)])
    confidence[alone] = calibration.confidence.of(fused.mass[alone, 0])
    withheld = np.zeros(len(confidence), np.bool_)
    return Answers(fused.positions, fused.mass, _nearest(class_id, fused), confidence, withheld)


def _fusion_settings(
    localiser: Localiser, fusion: FusionConfig | None, radius_m: float | None
) -> tuple[FusionConfig, float]:
    """Return the given settings, or those that the localiser was trained with."""
    stored = localiser.meta.get("fusion")
    if stored is not None:
        fusion, radius_m = fusion or FusionConfig(**stored["settings"]), radius_m or stored["radius_m"]
    if fusion is None or radius_m is None:
        raise InputError("the localiser does not say how to fuse evidence: run `pipeline train-heads` again")
    return fusion, radius_m


def _nearest(class_id: npt.NDArray[np.int64], fused: Fused) -> npt.NDArray[np.int64]:
    """Return the place nearest to each answer, -1 for none."""
    near = np.take_along_axis(class_id, np.maximum(fused.nearest, 0), axis=1)
    return np.where(fused.nearest >= 0, near, -1)


def confidence_mismatch(localiser: Localiser, fusion: FusionConfig, radius_m: float) -> str:
    """Return why confidences do not hold for these settings; "" if they do or there are none.

    Confidence is the probability of an answer within the radius it was fitted at, from the evidence that
    fusion gathers there.
    """
    stored = localiser.meta.get("fusion")
    if stored is None or localiser.calibration is None or not localiser.calibration.images:
        return ""
    fitted = {"radius_m": stored["radius_m"], **stored["settings"]}
    asked = {"radius_m": radius_m, **asdict(fusion)}
    differences = [
        f"{name} {fitted[name]:g} and not {asked[name]:g}"
        for name in ("radius_m", "candidates", "edge_m")
        if fitted[name] != asked[name]
    ]
    if not differences:
        return ""
    return (
        f"fitted for {', '.join(differences)}: make train.validation.radius_m equal to eval.radius_m "
        "and run `pipeline train-heads` again"
    )
