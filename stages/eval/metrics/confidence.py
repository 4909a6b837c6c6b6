"""Whether confidences mean what they say, and what abstaining would gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RiskCoverage:
    """Share of wrong answers among those given, if only the most confident ones are given.

    Attributes
    ----------
    coverage, risk : ndarray of float64, shape (Q,)
        Shares between 0 and 1, for 1, 2, ... Q answers given.
    """

    coverage: Floats
    risk: Floats

    @property
    def area(self) -> float:
        """Mean risk over all coverages (AURC); NaN without answers."""
        return float(self.risk.mean()) if len(self.risk) else float("nan")

    def risk_at(self, coverage: float) -> float:
        """Return the risk where at least this share is answered; NaN without answers."""
        if not len(self.risk):
            return float("nan")
        place = int(np.searchsorted(self.coverage, coverage - 1e-12))
        return float(self.risk[min(len(self.risk) - 1, place)])


def calibration_error(confidence: Floats, right: Bools, bins: int = 10) -> float:
    """Return the expected calibration error in percent: how far stated confidence is from the share right.

    Answers are put in `bins` equally wide bins of confidence; the distances
    between mean confidence and share right are averaged, weighted by answers
    (Guo et al. 2017). NaN without answers.
    """
    if not len(confidence):
        return float("nan")
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(place, weights=confidence - right, minlength=bins)
    return 100 * float(np.abs(gap).sum()) / len(confidence)


def separation(confidence: Floats, wanted: Bools) -> float:
    """Return the AUROC of telling the `wanted` answers by their higher confidence; NaN if all are alike."""
    if wanted.all() or not wanted.any():
        return float("nan")
    return float(roc_auc_score(wanted, confidence))


def risk_coverage(confidence: Floats, right: Bools) -> RiskCoverage:
    """Return the risk-coverage curve; equal confidence is taken in order of the queries."""
    order = np.argsort(-confidence, kind="stable")
    given = np.arange(1, len(order) + 1)
    return RiskCoverage(given / max(1, len(order)), np.cumsum(~right[order]) / given)
