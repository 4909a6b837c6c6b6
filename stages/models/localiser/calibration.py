"""Calibration: what turns the cosines of several heads into evidence, and evidence into probabilities.

Cosines of different groups cannot be compared: a group with more classes, or with classes nearer to each
other, has other winners. Evidence is the cosine divided by its group's temperature, plus the likeness to the
class's exemplars times a weight. One softmax over the classes of all groups turns it into probabilities.
`calibration_fit` fits these numbers on held-out images.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.errors import InputError
from stages.models.localiser.cell_fusion import FusionConfig
from stages.models.localiser.confidence import PRIOR, Confidence

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Calibration:
    """Temperatures, weight of the likeness, and a model of confidence.

    Attributes
    ----------
    temperatures : tuple of float
        Of each group; they divide cosines.
    likeness : float
        Multiplies the likeness to exemplars.
    confidence : Confidence
        `PRIOR` if too few images were held out to fit it.
    images : int
        Held-out images; 0 if temperatures and likeness are the configured ones.
    nll_before, nll_after : float or None
        Mean negative log likelihood of the true cells with the configured and with the fitted numbers.
    """

    temperatures: tuple[float, ...]
    likeness: float
    confidence: Confidence
    images: int
    nll_before: float | None
    nll_after: float | None

    @classmethod
    def configured(cls, groups: int, fusion: FusionConfig) -> Calibration:
        """Return the calibration of the settings alone, for localisers where nothing could be fitted."""
        return cls((fusion.temperature,) * groups, fusion.likeness, PRIOR, 0, None, None)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Calibration:
        """Return the calibration that `to_dict` described."""
        confidence = Confidence.from_dict(content["confidence"] or {})
        return cls(**{**content, "temperatures": tuple(content["temperatures"]), "confidence": confidence})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "temperatures": list(self.temperatures)}

    def evidence(self, cosines: Floats, groups: npt.NDArray[np.integer[Any]]) -> Floats:
        """Return the log probability of classes, up to a constant, given their cosines and groups."""
        evidence: Floats = cosines / np.array(self.temperatures)[groups]
        return evidence

    def add_likeness(self, evidence: Floats, likeness: Floats | None) -> Floats:
        """Return evidence plus weighted likeness; the evidence itself without exemplars."""
        return evidence if likeness is None else evidence + self.likeness * likeness


def require_calibration(calibration: Calibration | None) -> Calibration:
    """Return the calibration; raise InputError if there is none."""
    if calibration is None:
        raise InputError(
            "the localiser is not calibrated: train all groups with train.validation.share above 0, "
            "or set eval.score to cosine"
        )
    return calibration


def probabilities(evidence: Floats) -> Floats:
    """Return the softmax of each row; minus infinity is no evidence, and a row of it gets zeros."""
    best = evidence.max(axis=1, keepdims=True, initial=-np.inf)
    weights = np.exp(evidence - np.where(np.isfinite(best), best, 0.0))
    total = weights.sum(axis=1, keepdims=True)
    return weights / np.where(total > 0, total, 1)
