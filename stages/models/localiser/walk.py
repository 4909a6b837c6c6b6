"""Photos of one walk located together: forward-backward over each photo's best places.

A walk is a hidden Markov model. Its hidden states are places; a photo's evidence for its best places is the
emission; a person's speed and the noise of positions make the transition. With x and x' places of two photos
that follow each other after dt seconds,

    T(x' | x, dt) = (1 - j) N(x' - x; 0, s^2 I) A + j / K,    s = NOISE_M + speed dt,

where A is the area of a cell, K the number of places and j = `JUMP`, which keeps a wrong photo or a wrong
clock from breaking the walk. The posterior of a photo is its forward message (photos up to this one), or the
product of forward and backward messages (all photos of the walk).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from stages.models.localiser.cell_fusion import squared_distances

Floats = npt.NDArray[np.float64]
LookAt = Literal["past", "whole"]

NOISE_M = 10.0
"""How far positions of photos taken at one spot differ: the error of a phone's GPS."""
JUMP = 0.01
"""Probability that a photo does not continue the walk."""


@dataclass(frozen=True)
class WalkTimes:
    """When photos were taken, and how to use it.

    ``seconds`` (T,) is NaN where the time is unknown: such a photo is located alone. ``sessions`` names the
    walk, drive or camera of each photo. ``look_at``: use the photos before each photo only, or all of a walk.
    ``speed_m_s`` is that of the photographer: 1.4 on foot.
    """

    seconds: Floats
    sessions: Sequence[str]
    look_at: LookAt
    speed_m_s: float

    @property
    def look_ahead(self) -> tuple[float, int]:
        """The longest look-ahead of any answer: seconds, and number of photos that follow it."""
        if self.look_at == "past":
            return 0.0, 0
        spans = [
            float(self.seconds[walk[-1]] - self.seconds[walk[0]]) for walk in self.walks if len(walk) > 1
        ]
        return max(spans, default=0.0), max((len(walk) - 1 for walk in self.walks), default=0)

    @cached_property
    def walks(self) -> list[npt.NDArray[np.int64]]:
        """The photos of each walk in order of time; see `split_walks`."""
        return split_walks(self.seconds, self.sessions)


@dataclass(frozen=True)
class Motion:
    """What moves between two photos: a walker (1.4 m/s) or a car, in a city of so many cells."""

    speed_m_s: float
    cell_area_m2: float
    places: int


def split_walks(seconds: Floats, sessions: Sequence[str]) -> list[npt.NDArray[np.int64]]:
    """Return the photos of each walk in order of time, as rows; each photo belongs to one walk.

    Parameters
    ----------
    seconds : ndarray of float64, shape (T,)
        When each photo was taken; NaN if unknown: such a photo is a walk of its own.
    sessions : sequence of str
        Walk, drive or camera of each photo. Two cameras that take photos in turn need two names.
    """
    timed = np.isfinite(seconds)
    names = np.asarray(sessions, dtype=np.str_)
    walks = []
    for name in np.unique(names[timed]):
        rows = np.flatnonzero(timed & (names == name))
        walks.append(rows[np.argsort(seconds[rows], kind="stable")])
    return walks + [np.array([row]) for row in np.flatnonzero(~timed)]


def walk_posterior(
    positions: Floats, evidence: Floats, seconds: Floats, motion: Motion, look_at: LookAt
) -> Floats:
    """Return the probability of each place of each photo, given the other photos of the walk.

    Parameters
    ----------
    positions : ndarray of float64, shape (T, C, 2)
        Places with evidence, UTM metres; NaN where there are fewer.
    evidence : ndarray of float64, shape (T, C)
        Log probability of each place up to a constant per photo; minus infinity where there is no place.
    seconds : ndarray of float64, shape (T,)
        When each photo was taken, ascending.
    motion : Motion
        How fast the photographer moves, and in which city.
    look_at : {"past", "whole"}
        Use the photos before each photo only, or all photos of the walk.

    Returns
    -------
    ndarray of float64, shape (T, C)
        Rows add up to 1, or are 0 for a photo without any place.
    """
    best = np.max(evidence, axis=1, keepdims=True, initial=-1e300)
    emission = _normalised(np.exp(evidence - best))
    known = emission.sum(axis=1) > 0
    photos = np.flatnonzero(known)  # a photo without evidence says nothing, and the walk goes on without it
    # A position that is not known counts nothing, since its emission is 0.
    own, places, times = emission[photos], np.nan_to_num(positions[photos]), seconds[photos]
    posterior = np.zeros_like(emission)
    forward = _messages(own, places, times, motion)
    posterior[photos] = forward
    if look_at == "whole":
        # The transition is symmetric, so the photos that follow are the past of the walk in reverse.
        backward = _messages(own[::-1], places[::-1], -times[::-1], motion)[::-1]
        # Both messages contain the photo's own evidence: once is enough.
        with np.errstate(invalid="ignore", divide="ignore"):
            both = np.where(own > 0, forward * backward / own, 0.0)
        posterior[photos] = _normalised(both)
    return posterior


def _messages(emission: Floats, positions: Floats, seconds: Floats, motion: Motion) -> Floats:
    """Return what the photos up to each one say of its places, (T, C), normalised against underflow."""
    messages = np.empty_like(emission)
    for number, own in enumerate(emission):
        arrival: Floats | float = 1.0
        if number:
            waited_s = float(seconds[number] - seconds[number - 1])
            step = _transition(positions[number - 1], positions[number], waited_s, motion)
            arrival = messages[number - 1] @ step
        messages[number] = own * arrival
        messages[number] /= messages[number].sum()
    return messages


def _transition(here: Floats, there: Floats, seconds: float, motion: Motion) -> Floats:
    """Return T(there | here), (C, C)."""
    variance = (NOISE_M + motion.speed_m_s * max(seconds, 0.0)) ** 2
    moved = squared_distances(here, there)
    moved *= -1 / (2 * variance)
    np.exp(moved, out=moved)
    moved *= (1 - JUMP) * motion.cell_area_m2 / (2 * np.pi * variance)
    moved += JUMP / motion.places
    return moved


def _normalised(weights: Floats) -> Floats:
    total = weights.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(weights, total, out=np.zeros_like(weights), where=total > 0))
