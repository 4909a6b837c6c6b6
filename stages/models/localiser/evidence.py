"""Evidence for classes: the best classes by the heads, weighed with the likeness to exemplars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stages.models.localiser.calibration import Calibration
from stages.models.localiser.cell_fusion import FusionConfig
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.scoring import best_scores

Features = Tensor | npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ScoredClasses:
    """The best classes by the heads, with the evidence of heads and exemplars; each of shape (B, top).

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
) -> ScoredClasses:
    """Return the best `top` classes of each feature with their evidence, from heads and exemplars.

    `prior` (places,) is the log weight of each place, minus infinity for an impossible one.
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
    cosines = heads * np.array(calibration.temperatures)[groups_of(localiser, class_id)]
    likeness = exemplar_likeness(localiser, features, class_id)
    evidence, likeness = calibration.add_likeness(heads, cosines, likeness)
    return ScoredClasses(class_id, evidence + known, np.where(class_id >= 0, likeness, -1.0))


def join_crops(localiser: Localiser, crops: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Return one feature per query from those of its crops, each (B, F): their mean, (B, F).

    A localiser with a tail takes tokens, whose mean would mix different parts of a photo: its crops stay
    views, (B, V, F), whose evidence is averaged.
    """
    if len(crops) == 1:
        return crops[0]
    views = np.stack(crops, axis=1)
    return views if localiser.tail is not None else np.asarray(views.mean(axis=1, dtype=np.float32))


def exemplar_likeness(
    localiser: Localiser, features: Features, place_id: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64] | None:
    """Return the likeness to exemplars, (B, C), the mean over views; None without exemplars."""
    if localiser.exemplars is None:
        return None
    pooled = torch.as_tensor(features[..., : localiser.pooled_length])
    views = pooled[:, None] if pooled.ndim == 2 else pooled
    likeness = [localiser.exemplars.likeness(views[:, view], place_id) for view in range(views.shape[1])]
    return np.asarray(np.mean(likeness, axis=0)) if len(likeness) > 1 else likeness[0]


def groups_of(localiser: Localiser, class_id: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the group of each place, 0 for place -1."""
    if not len(localiser.places):
        return np.zeros_like(class_id)
    return localiser.places.group[np.maximum(class_id, 0)].astype(np.int64)
