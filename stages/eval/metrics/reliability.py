"""Whether confidences are calibrated, and how many errors abstaining avoids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ReliabilityBins:
    """Mean confidence, share right and number of answers per bin of confidence; empty bins are left out."""

    stated: Floats
    right: Floats
    answers: npt.NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error in percent (Guo et al. 2017); NaN without answers."""
        if not len(self.answers):
            return float("nan")
        gaps = np.abs(self.stated - self.right)
        return 100 * float((gaps * self.answers).sum() / self.answers.sum())


def reliability(confidence: Floats, right: Bools, *, bins: int = 10) -> ReliabilityBins:
    """Return the answers in `bins` equally wide bins of confidence.

    `confidence` (Q,) lies between 0 and 1, NaN for no answer; `right` (Q,) tells whether it is right.
    """
    known = np.isfinite(confidence)
    stated, hits = confidence[known], right[known]
    number = np.clip((stated * bins).astype(int), 0, bins - 1)
    inside = [number == one for one in np.unique(number)]
    return ReliabilityBins(
        stated=np.array([stated[mask].mean() for mask in inside]),
        right=np.array([hits[mask].mean() for mask in inside]),
        answers=np.array([mask.sum() for mask in inside], dtype=np.int64),
    )


@dataclass(frozen=True)
class RiskCoverage:
    """Wrong answers among the k most trusted ones, for k = 1, 2, ...

    Attributes
    ----------
    trust : ndarray of float64, shape (answers,)
        Trust of the k-th answer, falling.
    wrong : ndarray of int64, shape (answers,)
        Wrong answers among the first k.
    queries : int
        All queries, including those without an answer.
    """

    trust: Floats
    wrong: npt.NDArray[np.int64]
    queries: int

    @property
    def coverage(self) -> Floats:
        """Share of the queries that get an answer (answers,)."""
        return np.arange(1, len(self.wrong) + 1) / max(1, self.queries)

    @property
    def risk(self) -> Floats:
        """Share of wrong answers among these (answers,)."""
        return self.wrong / np.arange(1, len(self.wrong) + 1)

    @property
    def area(self) -> float:
        """Mean risk over all coverages (AURC); NaN without answers."""
        return float(self.risk.mean()) if len(self.wrong) else float("nan")

    def risk_at(self, coverage: float) -> float:
        """Return the risk if at least this share is answered; NaN without answers."""
        if not len(self.wrong):
            return float("nan")
        place = int(np.searchsorted(self.coverage, coverage - 1e-12))
        return float(self.risk[min(len(self.wrong) - 1, place)])


def risk_coverage(trust: Floats, right: Bools) -> RiskCoverage:
    """Return the risk-coverage curve; answers of equal trust keep the order of the queries.

    `trust` (Q,) is a confidence or score, not finite for no answer; `right` (Q,) tells whether it is right.
    """
    known = np.flatnonzero(np.isfinite(trust))
    order = known[np.argsort(-trust[known], kind="stable")]
    return RiskCoverage(trust[order], np.cumsum(~right[order]), len(trust))


def separation(confidence: Floats, wanted: Bools) -> float:
    """Return the AUROC of recognising the `wanted` answers by confidence; NaN if all or none are wanted."""
    if wanted.all() or not wanted.any():
        return float("nan")
    return float(roc_auc_score(wanted, confidence))
