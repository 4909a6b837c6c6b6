"""Fusion: evidence spread over neighbouring cells becomes a few answers that cover most of it.

Neighbouring cells lie in different groups, so the evidence for one place is spread over up to nine cells of
four heads, and the true position is at the centre of none of them. Taken together the scores are a
distribution over the map, and LR@N asks for the N positions that have most of it within their radius.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.errors import require

Floats = npt.NDArray[np.float64]
_SHIFTS = 3
"""Steps of the mean shift that carries each point to a local centre of the evidence."""
_CELLS_IN_MEMORY = 1 << 21
"""Distances in memory at once, however many queries there are."""


@dataclass(frozen=True)
class FusionConfig:
    """How the evidence of several cells, or photos, becomes answers: `eval.fusion` in params.yaml."""

    candidates: int
    edge_m: float
    covered: float
    temperature: float
    likeness: float
    abstain_cost: float

    def __post_init__(self) -> None:
        limits = {
            "candidates": (self.candidates > 0, "a positive number such as 32"),
            "edge_m": (self.edge_m > 0, "a positive distance such as 5"),
            "covered": (0 < self.covered <= 1, "a share of the radius such as 0.7"),
            "temperature": (self.temperature > 0, "a positive number such as 0.1"),
            "likeness": (self.likeness > 0, "a positive number such as 8"),
            "abstain_cost": (0 <= self.abstain_cost < 1, "a share such as 0.05"),
        }
        for name, (holds, expected) in limits.items():
            require(f"eval.fusion.{name}", getattr(self, name), holds, expected)


@dataclass(frozen=True)
class Fused:
    """Answers of each query, best first.

    Attributes
    ----------
    positions : ndarray of float64, shape (B, top, 2)
        UTM east and north in metres; NaN where no evidence is left.
    mass : ndarray of float64, shape (B, top)
        Share of the evidence that each answer covers and no earlier one does; 0 without an answer.
    nearest : ndarray of int64, shape (B, top)
        Column of the point nearest to each answer; -1 without an answer.
    """

    positions: Floats
    mass: Floats
    nearest: npt.NDArray[np.int64]


def fuse(
    points: Floats, weights: Floats, top: int, *, radius_m: float, edge_m: float, covered: float
) -> Fused:
    """Return up to `top` positions per query that cover the most evidence, greedily.

    Each point may be an answer, and so may the local centre to which a few weighted means within the radius
    move it. The first answer has the most weight within the radius. Weight well within it is then discounted,
    and further answers lie at least that far away. A greedy choice covers at least 63 % of the best possible
    one (Nemhauser et al. 1978).

    Parameters
    ----------
    points : ndarray of float64, shape (B, K, 2)
        UTM east and north in metres; those of weight 0 may be NaN.
    weights : ndarray of float64, shape (B, K)
        Evidence for each point, not negative; only ratios matter.
    top : int
        How many answers to give.
    radius_m : float
        An answer within this distance counts as correct.
    edge_m : float
        Softness of the radius: evidence at the radius counts half, this much nearer about three quarters.
    covered : float
        Share of radius and edge within which an answer uses up evidence and no other answer lies. Below 1,
        since a wrong answer is most often wrong by little: the right one is next to it.
    """
    count, width = weights.shape
    positions = np.full((count, top, 2), np.nan)
    mass, nearest = np.zeros((count, top)), np.full((count, top), -1)
    rows = max(1, _CELLS_IN_MEMORY // max(1, 2 * width * width))
    for start in range(0, count, rows):
        some = slice(start, start + rows)
        known: npt.NDArray[np.bool_] = np.greater(weights[some], 0)
        total = weights[some].sum(axis=1, keepdims=True)
        share = weights[some] / np.where(total > 0, total, 1)
        # Relative to the query's first point, since UTM northings of millions would cost digits.
        origin = np.where(np.any(known, axis=1, keepdims=True), _first(points[some], known), 0.0)
        local = np.where(known[:, :, None], points[some] - origin[:, None], 0.0)
        fused = _cover(local, share, top, (radius_m, edge_m), covered)
        positions[some] = fused.positions + origin[:, None]
        mass[some], nearest[some] = fused.mass, fused.nearest
    return Fused(positions, mass, nearest)


def share_near(centre: Floats, points: Floats, weights: Floats, *, radius_m: float, edge_m: float) -> Floats:
    """Return the share of the weights (B, K) of points (B, K, 2) within the radius of `centre` (B, 2)."""
    distances = np.linalg.norm(points - centre[:, None], axis=2)
    near = np.where(weights > 0, weights * _kernel(distances, radius_m, edge_m), 0.0).sum(axis=1)
    total = weights.sum(axis=1)
    return np.asarray(np.divide(near, total, out=np.zeros_like(near), where=total > 0))


def _first(points: Floats, known: npt.NDArray[np.bool_]) -> Floats:
    first: Floats = np.take_along_axis(points, known.argmax(axis=1)[:, None, None], axis=1)[:, 0]
    return first


def _cover(points: Floats, weights: Floats, top: int, reach: tuple[float, float], covered: float) -> Fused:
    candidates = np.concatenate([_shifted(points, weights, *reach), points], axis=1)
    distances = _distances(candidates, points)
    kernel, used = _kernel(distances, *reach), _kernel(distances / covered, *reach)
    every, left, unseen = np.arange(len(points)), weights.copy(), weights.copy()
    apart = np.ones(candidates.shape[:2], np.bool_)
    positions = np.full((len(points), top, 2), np.nan)
    mass, nearest = np.zeros((len(points), top)), np.full((len(points), top), -1)
    for place in range(top if points.shape[1] else 0):
        gain = np.where(apart, np.einsum("bck,bk->bc", used if place else kernel, left), 0.0)
        best = gain.argmax(axis=1)
        some = gain[every, best] > 1e-12
        positions[some, place] = candidates[every, best][some]
        mass[some, place] = (kernel[every, best] * unseen).sum(axis=1)[some]
        # The nearest point with any weight: points of weight 0 only fill up the row.
        closeness = np.where(weights > 0, kernel[every, best], -1.0)
        nearest[some, place] = closeness.argmax(axis=1)[some]
        left *= 1 - used[every, best]
        unseen *= 1 - kernel[every, best]
        away = _distances(candidates, candidates[every, best][:, None])[:, :, 0]
        apart &= away > covered * reach[0]
    return Fused(positions, mass, nearest)


def _shifted(points: Floats, weights: Floats, radius_m: float, edge_m: float) -> Floats:
    """Return the points moved to weighted means of the points within their radius, a few times."""
    places = points
    for _ in range(_SHIFTS):
        pull = _kernel(_distances(places, points), radius_m, edge_m) * weights[:, None, :]
        total = pull.sum(axis=2, keepdims=True)
        mean = np.matmul(pull, points) / np.where(total > 0, total, 1)
        places = np.where(total > 1e-12, mean, places)
    return places


def squared_distances(these: Floats, those: Floats) -> Floats:
    """Return the squared distances (..., n, m) of points (..., n, 2) and (..., m, 2), in a new array."""
    # In place: new arrays would take longer than the numbers in them.
    squared, north = (these[..., :, None, axis] - those[..., None, :, axis] for axis in (0, 1))
    squared *= squared
    north *= north
    squared += north
    return np.asarray(squared)


def _distances(these: Floats, those: Floats) -> Floats:
    # In metres from a point nearby, squares neither overflow nor vanish, so `np.hypot` is not needed.
    squared = squared_distances(these, those)
    return np.sqrt(squared, out=squared)


def _kernel(distances: Floats, radius_m: float, edge_m: float) -> Floats:
    """Return the weight of points at these distances: 1 well inside the radius, 0 well outside."""
    kernel = np.clip((distances - radius_m) / edge_m, -60, 60)
    np.exp(kernel, out=kernel)
    kernel += 1
    return np.asarray(np.divide(1, kernel, out=kernel))
