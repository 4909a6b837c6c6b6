"""Evidence for classes: the best classes by the heads, weighed with the likeness to exemplars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
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
    localiser: Localiser, features: Features, *, top: int, calibration: Calibration
) -> ScoredClasses:
    """Return the best `top` classes of each feature with their evidence, from heads and exemplars."""
    class_id, heads = best_scores(localiser, features, top, "calibrated", calibration)
    cosines = heads * np.array(calibration.temperatures)[groups_of(localiser, class_id)]
    likeness = exemplar_likeness(localiser, features, class_id)
    evidence, likeness = calibration.add_likeness(heads, cosines, likeness)
    return ScoredClasses(class_id, evidence, np.where(class_id >= 0, likeness, -1.0))


def exemplar_likeness(
    localiser: Localiser, features: Features, place_id: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64] | None:
    """Return the likeness to each place's exemplars, (B, C); None without exemplars."""
    if localiser.exemplars is None:
        return None
    return localiser.exemplars.likeness(features[:, : localiser.pooled_length], place_id)


def groups_of(localiser: Localiser, class_id: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the group of each place, 0 for place -1."""
    if not len(localiser.places):
        return np.zeros_like(class_id)
    return localiser.places.group[np.maximum(class_id, 0)].astype(np.int64)
