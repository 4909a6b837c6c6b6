"""Evidence for classes: the best classes by the heads, weighed with the likeness to exemplars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stages.models.localiser.calibration import Calibration
from stages.models.localiser.cell_fusion import FusionConfig
from stages.models.localiser.embedded import Features, features_of
from stages.models.localiser.familiarity import cosine_elsewhere, familiarity
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.scoring import best_scores


@dataclass(frozen=True)
class ScoredClasses:
    """The best classes by the heads, with the evidence of heads and exemplars; each of shape (B, top).

    Attributes
    ----------
    class_id : ndarray of int64
        In the order of the heads' evidence; -1 where there are fewer classes.
    evidence : ndarray of float64
        Log probability up to a constant; minus infinity where there is no class.
    familiarity : ndarray of float64, shape (B,)
        Of each photo with the city; 0 if that is unknown.
    """

    class_id: npt.NDArray[np.int64]
    evidence: npt.NDArray[np.float64]
    familiarity: npt.NDArray[np.float64]


@dataclass(frozen=True)
class ExemplarScores:
    """Likeness to places, and cosines that tell whether a photo shows the city.

    Attributes
    ----------
    likeness, plain : ndarray of float64, shape (B, C)
        Best cosine with the exemplars of each place, of centred features and of features as they are.
    elsewhere : ndarray of float64, shape (B,), or None
        Cosine with the nearest drawn picture.
    """

    likeness: npt.NDArray[np.float64]
    plain: npt.NDArray[np.float64]
    elsewhere: npt.NDArray[np.float64] | None

    def familiarity(self) -> npt.NDArray[np.float64]:
        """Return the familiarity of each photo (B,)."""
        return familiarity(self.plain.max(axis=1, initial=-1.0), self.elsewhere)


def calibration_for(localiser: Localiser, fusion: FusionConfig) -> Calibration:
    """Return the localiser's calibration, or the configured one if too few images were held out to fit it."""
    return localiser.calibration or Calibration.configured(localiser.classes.groups, fusion)


def score_classes(
    localiser: Localiser,
    features: Features,
    *,
    top: int,
    calibration: Calibration,
    prior: npt.NDArray[np.float64] | None = None,
    photos: int = 1,
) -> ScoredClasses:
    """Return the best `top` classes of each feature with their evidence, from heads and exemplars.

    `prior` (places,) is the log weight of each place, minus infinity for an impossible one. The views of a
    feature may come from several `photos` of one spot.
    """
    depth = top if prior is None else max(top, len(prior))
    class_id, heads = best_scores(localiser, features, depth, "calibrated", calibration)
    known: npt.NDArray[np.float64] = np.zeros((1, 1))
    if prior is not None:
        known = np.where(class_id >= 0, prior[class_id], -np.inf)
        best = np.argsort(-(heads + known), axis=1, kind="stable")[:, :top]
        class_id = np.take_along_axis(class_id, best, axis=1)
        heads, known = (np.take_along_axis(part, best, axis=1) for part in (heads, known))
        class_id = np.where(known > -np.inf, class_id, -1)
    scores = exemplar_scores(localiser, features, class_id)
    evidence = calibration.add_likeness(heads, None if scores is None else scores.likeness)
    familiar = np.zeros(len(class_id)) if scores is None else scores.familiarity()
    # Photos of one spot are alike: n of them say less than n times as much as one, but more than one.
    return ScoredClasses(class_id, evidence * math.sqrt(photos) + known, familiar)


def join_crops(localiser: Localiser, crops: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Return one feature per query from those of its crops, each (B, F): their mean, (B, F).

    A localiser with a tail takes tokens, whose mean would mix different parts of a photo: its crops stay
    views, (B, V, F), whose evidence is averaged.
    """
    if len(crops) == 1:
        return crops[0]
    views = np.stack(crops, axis=1)
    return views if localiser.tail is not None else np.asarray(views.mean(axis=1, dtype=np.float32))


def exemplar_scores(
    localiser: Localiser, features: Features, place_id: npt.NDArray[np.int64]
) -> ExemplarScores | None:
    """Return cosines with exemplars and drawn pictures, the mean over views; None without exemplars."""
    exemplars = localiser.exemplars
    if exemplars is None:
        return None
    pooled = torch.as_tensor(features_of(features)[..., : localiser.pooled_length])
    views = pooled[:, None] if pooled.ndim == 2 else pooled
    cosines = [exemplars.compare(views[:, view], place_id) for view in range(views.shape[1])]
    likeness, plain = cosines[0] if len(cosines) == 1 else np.mean(cosines, axis=0)
    drawn = [cosine_elsewhere(exemplars, views[:, view]) for view in range(views.shape[1])]
    known = [cosine for cosine in drawn if cosine is not None]
    return ExemplarScores(likeness, plain, np.mean(known, axis=0) if known else None)


def withheld_answers(
    localiser: Localiser, familiarity: npt.NDArray[np.float64], confidence: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Return which answers to withhold: by familiarity, or by confidence where that was not fitted."""
    if localiser.familiarity_threshold is not None:
        return familiarity < localiser.familiarity_threshold
    calibration = localiser.calibration
    if calibration is None:
        return np.zeros(len(confidence), np.bool_)
    return confidence < calibration.confidence.abstain_below


def groups_of(localiser: Localiser, class_id: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the group of each place, 0 for place -1."""
    if not len(localiser.places):
        return np.zeros_like(class_id)
    return localiser.places.group[np.maximum(class_id, 0)].astype(np.int64)
