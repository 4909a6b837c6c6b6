"""The hybrid localiser: classification proposes cells, retrieval ranks the photos inside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.eval.config import HybridConfig
from stages.eval.localisers.cell_index import CellIndex
from stages.eval.localisers.retrieval import PhotoSpace
from stages.models.localiser.calibration import probabilities
from stages.models.localiser.cell_fusion import Fused, FusionConfig, fuse
from stages.models.localiser.embedded import Features
from stages.models.localiser.evidence import calibration_for, score_classes
from stages.partition import grid
from stages.partition.places import Places

_QUERIES_AT_ONCE = 128
_LEAST_LOG_PROBABILITY = -12.0


def _around(
    places: Places, ids: npt.NDArray[np.int64], ring: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the codes of the cells of `ids` and `ring` rings around, and each one's index in `ids`."""
    codes, owners = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for span in np.unique(places.span[ids]):
        some = np.flatnonzero(places.span[ids] == span)
        corners = np.stack([places.p[ids[some]], places.q[ids[some]]], axis=1)
        steps = np.arange(-ring, span + ring)
        around = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        codes.append(grid.code(corners[:, None] + around).ravel())
        owners.append(np.repeat(some, len(around)))
    return np.concatenate(codes), np.concatenate(owners)


@dataclass(frozen=True)
class Hybrid:
    """Ranks the photos of the most probable cells; `space` holds the localiser that proposes them."""

    space: PhotoSpace
    index: CellIndex
    config: HybridConfig
    fusion: FusionConfig
    radius_m: float

    def locate(self, features: Features, top: int) -> Fused:
        """Return up to `top` positions of each query feature (Q, F)."""
        parts = []
        for start in range(0, max(1, len(features)), _QUERIES_AT_ONCE):
            block = features[start : start + _QUERIES_AT_ONCE]
            rows, weights = self.rank(block)
            points = np.where(rows[:, :, None] >= 0, self.index.positions[np.maximum(rows, 0)], np.nan)
            reach = {"radius_m": self.radius_m, "edge_m": self.fusion.edge_m}
            parts.append(fuse(points, weights, top, covered=self.fusion.covered, **reach))
        return Fused(
            np.concatenate([part.positions for part in parts]),
            np.concatenate([part.mass for part in parts]),
            np.concatenate([part.nearest for part in parts]),
        )

    def rank(self, features: Features) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the database rows of the best photos of each query and their weights, both (Q, photos).

        Rows are -1 and weights 0 if there are fewer photos.
        """
        localiser = self.space.localiser
        calibration = calibration_for(localiser, self.fusion)
        depth = max(self.fusion.candidates, self.config.cells)
        seen = score_classes(localiser, features, top=depth, calibration=calibration)
        prior = np.log(np.maximum(probabilities(seen.evidence), np.exp(_LEAST_LOG_PROBABILITY)))
        candidates = [self._candidates(*query) for query in zip(seen.class_id, prior, strict=True)]
        vectors = self.space.vectors(features)
        count = self.config.photos
        best, score = np.full((len(candidates), count), -1), np.full((len(candidates), count), -np.inf)
        for query, (photos, cell_prior) in enumerate(candidates):
            similarity = self.index.similarity(vectors[query], photos)
            value = similarity / self.config.temperature + self.config.prior_weight * cell_prior
            order = np.argsort(-value, kind="stable")[:count]
            best[query, : len(order)] = self.index.rows[photos[order]]
            score[query, : len(order)] = value[order]
        return best, probabilities(score)

    def _candidates(
        self, class_id: npt.NDArray[np.int64], prior: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Indices of the photos in and around a query's best cells, and their cells' log probability."""
        places, known = self.space.localiser.places, class_id >= 0
        best = class_id[known]
        codes = np.unique(_around(places, best[: self.config.cells], self.config.neighbours)[0])
        photos, cell = self.index.within(codes)
        # A neighbouring cell has the probability of its own place, if that is among the candidates.
        own, owner = _around(places, best, 0)
        order = np.argsort(own)
        index = np.searchsorted(own[order], codes).clip(max=max(0, len(own) - 1))
        listed = own[order][index] == codes
        probability = np.where(listed, prior[known][owner[order][index]], _LEAST_LOG_PROBABILITY)
        return photos, probability[cell]
