"""Places by hand: what answers name where several partitions cover a city."""

from __future__ import annotations

import numpy as np

from stages.partition.classes import ClassTable
from stages.partition.places import Places
from stages.partition.tail_augmentation import view_counts
from tests.stages.partition.test_stage import config


def two_partitions():
    """Three cells of 10 m with 5, 9 and 3 images, then the square of 20 m that holds the first two."""
    corners = np.array([[4, 6], [5, 6], [8, 8], [4, 6]])
    spans = np.array([1, 1, 1, 2])
    return ClassTable(
        group=np.array([0, 0, 0, 1], np.int32),
        index=np.array([0, 1, 2, 0], np.int32),
        p=corners[:, 0],
        q=corners[:, 1],
        centres=10.0 * (corners + spans[:, None] / 2),
        images=np.array([5, 9, 3, 7]),
        bucket=np.array(["tail", "head", "tail", "mid"]),
        p_aug=np.zeros(4, np.float32),
        cell_m=10.0,
        groups_per_side=1,
        zone="10S",
        span=spans,
        partitions=2,
    )


def test_a_place_has_the_images_of_its_smallest_class():
    places = Places.of(two_partitions())
    assert places.votes.tolist() == [[0, 3], [1, 3]]  # the third cell lies in no square
    assert places.images.tolist() == [5, 7]
    assert places.bucket.tolist() == ["tail", "head"]
    assert places.group.tolist() == [0, 0]
    assert places.centres.tolist() == [[45, 65], [55, 65]]
    assert places.summed


def test_a_position_lies_in_the_place_that_begins_at_its_border():
    places = Places.of(two_partitions())
    east = np.array([40.0, 49.999, 50.0, 59.999, 60.0, 39.999, 85.0])
    positions = np.stack([east, np.where(east > 80, 85.0, 60.0)], axis=1)
    assert places.at(positions).tolist() == [0, 0, 1, 1, -1, -1, -1]


def test_images_of_no_class_get_no_view_whatever_the_seed():
    hashes = np.random.default_rng(0).integers(0, 1 << 63, 5000).astype(np.uint64)
    for seed in range(3):
        labels = np.full(5000, -1, np.int32)
        assert not view_counts(labels, hashes, np.array([0.5], np.float32), config(), seed).any()
