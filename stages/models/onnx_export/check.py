"""Comparison of an ONNX file with the Python answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stages.errors import InputError
from stages.models.backbones.backbone import Backbone
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.scoring import Score, best_scores
from stages.models.onnx_export.convert import INPUT
from stages.models.onnx_export.graph import COSINE, EVIDENCE

Pixels = npt.NDArray[np.uint8]
Scores = dict[str, npt.NDArray[np.float32]]

TOLERANCE = 1e-4
"""Largest accepted difference of a cosine."""
TOP = 20
"""Places whose order must be equal."""


class OnnxLocaliser:
    """An ONNX file opened with onnxruntime, on the CPU."""

    def __init__(self, file: Path) -> None:
        import onnxruntime

        try:
            self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        except Exception as error:
            raise InputError(f"onnxruntime cannot load the exported graph ({error})") from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def scores(self, pixels: Pixels) -> Scores:
        """Return the outputs of preprocessed pixels (B, S, S, 3), each (B, places)."""
        try:
            values = self._session.run(self._outputs, {INPUT: pixels})
        except Exception as error:
            raise InputError(f"onnxruntime cannot run the exported graph ({error})") from error
        return dict(zip(self._outputs, values, strict=True))

    def ranked_by(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Return the scores (B, places) that rank places: evidence if there is any, else cosines."""
        scores = self.scores(pixels)
        return scores.get(EVIDENCE, scores[COSINE])


def require_equal(onnx: OnnxLocaliser, localiser: Localiser, backbone: Backbone, pixels: Pixels) -> float:
    """Return the largest difference of a cosine from the Python answers.

    Raises
    ------
    InputError
        If it exceeds the tolerance, or the best 20 places have another order. Places whose scores differ
        by less than the tolerance may change places.
    """
    pooled = backbone(torch.from_numpy(pixels))
    joined = torch.cat([pooled[name] for name in localiser.inputs], dim=1)
    features = joined.cpu().numpy().astype(localiser.recipe.dtype)
    scores = onnx.scores(pixels)
    expected = _of_all_places(localiser, features, "cosine")
    worst = float(np.abs(scores[COSINE] - expected).max())
    if not worst <= TOLERANCE:  # also if it is not a number
        raise InputError(
            f"the exported graph computes other cosines than Python (they differ by up to {worst:.2g}, "
            f"expected at most {TOLERANCE:g}): nothing was written"
        )
    _require_order(scores[COSINE], expected, TOLERANCE)
    if localiser.calibration is not None:
        calibrated = _of_all_places(localiser, features, "calibrated")
        _require_order(scores[EVIDENCE], calibrated, TOLERANCE / min(localiser.calibration.temperatures))
    return worst


def _of_all_places(localiser: Localiser, features: Any, score: Score) -> npt.NDArray[np.float64]:
    """Return the scores (B, places) that Python ranks by, in the order of the places."""
    calibration = localiser.calibration if score == "calibrated" else None
    ids, values = best_scores(localiser, features, len(localiser.places), score, calibration)
    ordered = np.full(ids.shape, -np.inf)
    np.put_along_axis(ordered, ids, values, axis=1)
    return ordered


def _require_order(scores: npt.NDArray[Any], expected: npt.NDArray[np.float64], tolerance: float) -> None:
    """Raise InputError unless both rank the best places alike, up to scores within the tolerance."""
    own = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
    theirs = np.argsort(-expected, axis=1, kind="stable")[:, :TOP]
    apart = np.take_along_axis(expected, own, 1) - np.take_along_axis(expected, theirs, 1)
    if np.abs(apart[own != theirs]).max(initial=0.0) > 2 * tolerance:
        raise InputError("the exported graph ranks places in another order than Python: nothing was written")
