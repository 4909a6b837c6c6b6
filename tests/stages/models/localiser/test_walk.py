"""Walks: the posterior against all paths by brute force, and what people's walks bring."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from stages.models.localiser.walk import JUMP, NOISE_M, Motion, split_walks, walk_posterior

MOTION = Motion(speed_m_s=1.5, cell_area_m2=400.0, places=50)


def street(photos, cells=3, seed=0):
    """Places of a street with random evidence: positions (T, C, 2), evidence (T, C), seconds (T,)."""
    random = np.random.default_rng(seed)
    positions = random.uniform(0, 80, (photos, cells, 2))
    return positions, random.normal(0, 2, (photos, cells)), np.cumsum(random.uniform(1, 9, photos))


def transition(here, there, seconds):
    spread = NOISE_M + MOTION.speed_m_s * seconds
    near = np.exp(-np.sum((there - here) ** 2) / (2 * spread**2)) / (2 * np.pi * spread**2)
    return (1 - JUMP) * near * MOTION.cell_area_m2 + JUMP / MOTION.places


def by_brute_force(positions, evidence, seconds):
    """Add up the probabilities of every path through the places."""
    photos, cells = evidence.shape
    posterior = np.zeros((photos, cells))
    for path in itertools.product(range(cells), repeat=photos):
        weight = np.exp(evidence[0, path[0]])
        for t in range(1, photos):
            weight *= np.exp(evidence[t, path[t]]) * transition(
                positions[t - 1, path[t - 1]], positions[t, path[t]], seconds[t] - seconds[t - 1]
            )
        posterior[np.arange(photos), path] += weight
    return posterior / posterior.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(4))
def test_whole_walk_equals_the_sum_over_all_paths(seed):
    walk = street(4, seed=seed)
    posterior = walk_posterior(*walk, MOTION, "whole")
    np.testing.assert_allclose(posterior, by_brute_force(*walk), rtol=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_past_ignores_the_photos_that_follow(seed):
    positions, evidence, seconds = street(4, seed=seed)
    posterior = walk_posterior(positions, evidence, seconds, MOTION, "past")
    for last in range(1, 5):
        part = by_brute_force(positions[:last], evidence[:last], seconds[:last])
        np.testing.assert_allclose(posterior[last - 1], part[-1], rtol=1e-10)


@pytest.mark.parametrize("look_at", ["past", "whole"])
def test_one_photo_keeps_its_own_evidence(look_at):
    positions, evidence, seconds = street(1)
    posterior = walk_posterior(positions, evidence, seconds, MOTION, look_at)
    expected = np.exp(evidence) / np.exp(evidence).sum()
    np.testing.assert_allclose(posterior, expected)


def test_neighbours_decide_between_two_equal_places():
    here, far = (0.0, 0.0), (900.0, 0.0)
    positions = np.array([[here, far]] * 3)
    evidence = np.log([[0.9, 0.1], [0.5, 0.5], [0.9, 0.1]])
    posterior = walk_posterior(positions, evidence, np.array([0.0, 5.0, 10.0]), MOTION, "whole")
    assert posterior[1, 0] > 0.98


def test_a_jump_of_a_kilometre_is_followed():
    here, far = (0.0, 0.0), (1000.0, 0.0)
    positions = np.array([[here, far]] * 6)
    certain = np.log([[1 - 1e-6, 1e-6]] * 3 + [[1e-6, 1 - 1e-6]] * 3)
    posterior = walk_posterior(positions, certain, np.arange(6.0), MOTION, "whole")
    assert posterior.argmax(axis=1).tolist() == [0, 0, 0, 1, 1, 1]


def test_a_long_gap_says_nothing():
    positions = np.array([[(0.0, 0.0), (900.0, 0.0)]] * 2)
    evidence = np.log([[0.99, 0.01], [0.4, 0.6]])
    posterior = walk_posterior(positions, evidence, np.array([0.0, 86400.0]), MOTION, "past")
    np.testing.assert_allclose(posterior[1], [0.4, 0.6], atol=1e-3)


def test_a_photo_without_any_place_is_stepped_over():
    positions, evidence, seconds = street(3)
    positions[1], evidence[1] = np.nan, -np.inf
    posterior = walk_posterior(positions, evidence, seconds, MOTION, "whole")
    assert posterior[1].tolist() == [0, 0, 0]
    others = walk_posterior(positions[::2], evidence[::2], seconds[::2], MOTION, "whole")
    np.testing.assert_allclose(posterior[::2], others)


def test_missing_places_of_a_photo_get_nothing():
    positions, evidence, seconds = street(3)
    positions[1, 2], evidence[1, 2] = np.nan, -np.inf
    posterior = walk_posterior(positions, evidence, seconds, MOTION, "whole")
    assert posterior[1, 2] == 0
    assert np.isfinite(posterior).all()


def test_a_thousand_certain_photos_do_not_underflow():
    positions = np.zeros((1000, 2, 2))
    positions[:, 1] = 500.0
    evidence = np.tile([-1000.0, -2000.0], (1000, 1))
    posterior = walk_posterior(positions, evidence, np.arange(1000.0), MOTION, "whole")
    np.testing.assert_allclose(posterior, np.tile([1.0, 0.0], (1000, 1)), atol=1e-12)


def test_walks_are_split_by_session_and_sorted_by_time():
    seconds = np.array([5.0, 1.0, np.nan, 3.0, 2.0])
    walks = split_walks(seconds, ["a", "a", "a", "b", "b"])
    assert [walk.tolist() for walk in walks] == [[1, 0], [4, 3], [2]]


def test_photos_of_one_second_keep_their_order():
    assert split_walks(np.array([2.0, 1.0, 1.0, 1.0]), [""] * 4)[0].tolist() == [1, 2, 3, 0]


def two_streets(photos, street):
    """Positions and evidence of photos along a street 900 m from another, undecided between the two."""
    here = np.stack([np.arange(photos) * 3.0, np.full(photos, 900.0 * street)], axis=1)
    there = here + np.array([0.0, 900.0 * (1 - 2 * street)])
    return np.stack([here, there], axis=1), np.tile(np.log([0.5, 0.5]), (photos, 1))


def test_interleaved_cameras_are_two_walks():
    seconds = np.arange(10.0)
    walks = split_walks(seconds, ["a", "b"] * 5)
    assert [walk.tolist() for walk in walks] == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    positions, evidence = (np.empty((10, 2, 2)), np.empty((10, 2)))
    for street, walk in enumerate(walks):
        positions[walk], evidence[walk] = two_streets(5, street)
        evidence[walk[0]] = np.log([0.95, 0.05])
    for walk in walks:
        posterior = walk_posterior(positions[walk], evidence[walk], seconds[walk], MOTION, "whole")
        assert (posterior[:, 0] > 0.9).all()


def test_a_wrong_clock_costs_one_photo_and_not_the_walk():
    positions, _ = two_streets(6, 0)
    evidence = np.log(np.tile([0.99, 0.01], (6, 1)))
    # The third photo is of the other street, because its clock is wrong: its own evidence is clear.
    evidence[2] = np.log([1e-9, 1 - 1e-9])
    posterior = walk_posterior(positions, evidence, np.arange(6.0), MOTION, "whole")
    assert posterior.argmax(axis=1).tolist() == [0, 0, 1, 0, 0, 0]


def test_a_clock_that_is_wrong_by_a_constant_changes_nothing():
    positions, evidence, seconds = street(5)
    expected = walk_posterior(positions, evidence, seconds, MOTION, "whole")
    shifted = walk_posterior(positions, evidence, seconds + 3600.0, MOTION, "whole")
    np.testing.assert_allclose(shifted, expected, rtol=1e-9)
