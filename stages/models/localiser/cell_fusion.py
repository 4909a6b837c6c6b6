"""Evidence spread over neighbouring places -> a few answers that say most.

Neighbouring cells lie in different groups, so what speaks for one place is
spread over up to nine cells of four heads, and the true position lies at the
centre of none of them. Taken together the scores are a distribution over the
map, and LR@N asks for the N positions within whose radius most of it lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.errors import ConfigError

Floats = npt.NDArray[np.float64]
_SHIFTS = 3
_CELLS_IN_MEMORY = 1 << 21
"""Distances held at once: bounds what many queries cost."""


@dataclass(frozen=True)
class FusionConfig:
    """How the evidence of several cells, or photos, becomes answers.

    Attributes
    ----------
    candidates : int
        The best cells of a query, over all groups, that are looked at.
    edge_m : float
        Softness of the radius: evidence at the radius counts half, this much
        further in or out about three quarters or one quarter.
    covered : float
        Share of the radius, and of its edge, within which an answer makes
        further ones superfluous. Below 1, since a wrong answer is most often
        wrong by little: the right one is next to it.
    temperature : float
        What cosines are divided by where too few images are held out to
        calibrate each group's temperature.
    likeness : float
        What the likeness to exemplars is multiplied by, likewise.
    abstain_cost : float
        Share of the right answers to held-out images that are withheld for
        their low confidence; the rest sets the threshold.
    """

    candidates: int
    edge_m: float
    covered: float
    temperature: float
    likeness: float
    abstain_cost: float

    def __post_init__(self) -> None:
        _expect("candidates", self.candidates, self.candidates > 0, "a positive number such as 32")
        _expect("edge_m", self.edge_m, self.edge_m > 0, "a positive distance such as 5")
        _expect("covered", self.covered, 0 < self.covered <= 1, "a share of the radius such as 0.7")
        _expect("temperature", self.temperature, self.temperature > 0, "a positive number such as 0.1")
        _expect("likeness", self.likeness, self.likeness > 0, "a positive number such as 8")
        _expect("abstain_cost", self.abstain_cost, 0 <= self.abstain_cost < 1, "a share such as 0.02")


def _expect(key: str, value: float, fine: bool, expected: str) -> None:
    if not fine:
        raise ConfigError(f"eval.fusion.{key} is {value}: expected {expected}; edit it in params.yaml")


@dataclass(frozen=True)
class Fused:
    """Answers of each query, best first.

    Attributes
    ----------
    positions : ndarray of float64, shape (B, top, 2)
        UTM east and north in metres; NaN where all evidence is used up.
    mass : ndarray of float64, shape (B, top)
        Share of the evidence that each answer covers and no earlier one does;
        0 where there is no answer.
    nearest : ndarray of int64, shape (B, top)
        The point nearest to each answer: a column of `points`; -1 where there is no answer.
    """

    positions: Floats
    mass: Floats
    nearest: npt.NDArray[np.int64]


def fuse(
    points: Floats, weights: Floats, top: int, *, radius_m: float, edge_m: float, covered: float
) -> Fused:
    """Return up to `top` positions per query that cover the most evidence, greedily.

    Each point, and each mean to which a few weighted averages within the
    radius carry it, may be an answer. The first answer is the one with the most
    weight within the radius; what lies well within it is then discounted, and
    the next ones lie at least that far from it. Greedy choice of a coverage is at least 63 % of
    the best possible one (Nemhauser et al. 1978).

    Parameters
    ----------
    points : ndarray of float64, shape (B, K, 2)
        UTM east and north in metres; those of weight 0 may be NaN.
    weights : ndarray of float64, shape (B, K)
        How much speaks for each point, not negative; only ratios matter.
    top : int
        How many answers to give.
    radius_m : float
        An answer this near is right.
    edge_m : float
        Softness of the radius.
    covered : float
        Share of radius and edge within which evidence is used up by an answer, and no other answer lies.
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
        # Small numbers near the query's first point: UTM northings of millions would cost digits.
        origin = np.where(np.any(known, axis=1, keepdims=True), _first(points[some], known), 0.0)
        local = np.where(known[:, :, None], points[some] - origin[:, None], 0.0)
        found = _cover(local, share, top, (radius_m, edge_m), covered)
        positions[some] = found.positions + origin[:, None]
        mass[some], nearest[some] = found.mass, found.nearest
    return Fused(positions, mass, nearest)


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
        # The nearest point that weighs anything: fillers of weight 0 lie anywhere.
        closeness = np.where(weights > 0, kernel[every, best], -1.0)
        nearest[some, place] = closeness.argmax(axis=1)[some]
        left *= 1 - used[every, best]
        unseen *= 1 - kernel[every, best]
        away = np.linalg.norm(candidates - candidates[every, best][:, None], axis=2)
        apart &= away > covered * reach[0]
    return Fused(positions, mass, nearest)


def _shifted(points: Floats, weights: Floats, radius_m: float, edge_m: float) -> Floats:
    """Return where weighted means within the radius carry each point."""
    places = points
    for _ in range(_SHIFTS):
        pull = _kernel(_distances(places, points), radius_m, edge_m) * weights[:, None, :]
        total = pull.sum(axis=2, keepdims=True)
        mean = np.matmul(pull, points) / np.where(total > 0, total, 1)
        places = np.where(total > 1e-12, mean, places)
    return places


def _distances(these: Floats, those: Floats) -> Floats:
    east = these[:, :, None, 0] - those[:, None, :, 0]
    north = these[:, :, None, 1] - those[:, None, :, 1]
    return np.hypot(east, north)


def _kernel(distances: Floats, radius_m: float, edge_m: float) -> Floats:
    """Return how much a point at each distance counts: 1 well inside the radius, 0 well outside."""
    kernel: Floats = 1 / (1 + np.exp(np.clip((distances - radius_m) / edge_m, -60, 60)))
    return kernel
