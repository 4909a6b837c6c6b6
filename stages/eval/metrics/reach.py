"""What answers can reach: chance, queries near a cell's centre, and the ceiling of LR@N."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull, QhullError
from sklearn.neighbors import KDTree

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reach:
    """Shares of the queries in percent.

    `chance` is LR@1 of a random cell, `near_cell` the share within the radius of some cell's centre, and
    `ceiling` the share that any answer can get right: `near_cell` for single cells; for fused answers, which
    lie between centres, the share within the radius of the convex hull of the centres.
    """

    chance: float
    near_cell: float
    ceiling: float

    @classmethod
    def of(cls, centres: Floats, truth: Floats, radius_m: float, *, fused: bool) -> Reach:
        """Return the reach of cells with these centres (n, 2) for queries at `truth` (Q, 2)."""
        if not len(truth) or not len(centres):
            return cls(0.0, 0.0, 0.0)
        near = KDTree(centres).query_radius(truth, radius_m, count_only=True)
        reached = near > 0
        ceiling = reached | (hull_distances(centres, truth) <= radius_m) if fused else reached
        return cls(
            100 * float(near.mean()) / len(centres), 100 * float(reached.mean()), 100 * float(ceiling.mean())
        )


def hull_distances(centres: Floats, points: Floats) -> Floats:
    """Return the distance of each point (Q, 2) to the convex hull of the centres, 0 inside."""
    origin = centres.mean(axis=0)
    local, points = centres - origin, points - origin
    inside = np.zeros(len(points), np.bool_)
    try:
        hull = ConvexHull(local)
    except (QhullError, ValueError):  # fewer than three centres, or all on a line: a segment
        along = local @ np.linalg.svd(local, full_matrices=False)[2][0]
        corners = local[[int(along.argmin()), int(along.argmax())]]
    else:
        corners = local[hull.vertices]
        inside = (points @ hull.equations[:, :2].T + hull.equations[:, 2] <= 0).all(axis=1)
    distances = np.full(len(points), np.inf)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        edge = end - start
        share = np.clip((points - start) @ edge / max(float(edge @ edge), 1e-12), 0, 1)
        distances = np.minimum(distances, np.linalg.norm(points - start - share[:, None] * edge, axis=1))
    return np.where(inside, 0.0, distances)
