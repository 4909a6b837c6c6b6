"""Advice on a partition: what bounds the result and which line to change."""

from __future__ import annotations

import numpy as np
import pytest

from stages.index.manifest import Manifest
from stages.partition.advice import advise
from stages.partition.classes import ClassTable
from stages.partition.stage import PartitionInputs, run
from tests.stages.partition.test_stage import config, manifest_of

RADIUS = 6.0
ORIGIN = np.array([500_000.0, 4_000_000.0])
FULL = np.repeat([[5.0, 5.0], [25.0, 5.0], [105.0, 5.0], [125.0, 5.0]], 4, axis=0)
LONE = np.array([[205.0, 5.0], [305.0, 5.0], [405.0, 5.0]])


@pytest.fixture
def told(tmp_path):
    """A function that partitions a city and returns its advice as text -> remedy."""

    def advice(photos, queries, columns=None, **changes):
        photos = photos + ORIGIN
        settings = {"groups_per_side": 1, "min_images_per_class": 4, **changes}
        path = manifest_of(tmp_path / "m.parquet", photos, **(columns or {}))
        run(PartitionInputs(config(**settings), path, tmp_path, seed=0))
        classes, labels = ClassTable.load(tmp_path / "classes.parquet"), np.load(tmp_path / "labels.npy")
        queries = None if queries is None else queries + ORIGIN
        return {
            each.text: each.remedy for each in advise(classes, labels, Manifest.open(path), queries, RADIUS)
        }

    return advice


def test_photos_in_no_class_are_counted(told):
    text = "3 of 19 photos lie in cells with fewer than 4 photos and are in no class"
    remedy = "lower partition.min_images_per_class, or raise partition.cell_m (now 10)"
    photos = np.vstack([FULL, LONE])
    assert told(photos, None) == {text: remedy}
    assert told(photos, FULL) == {text: remedy}
    assert told(photos, np.vstack([FULL[:3], LONE[:1]])) == {
        text: remedy,
        "75 % of the queries lie within 6 m of a class": "with partition.min_images_per_class: 1 it is 100 %",
    }
    assert told(photos, LONE, min_images_per_class=1) == {}


def test_a_quadtree_promises_no_share(told):
    advice = told(np.vstack([FULL, LONE]), LONE, scheme="quadtree")
    assert not any("of the queries" in text for text in advice)


def test_shifted_grids_promise_at_least_the_share(told):
    photos = np.vstack([FULL, LONE])
    advice = told(photos, np.vstack([FULL[:3], LONE[:1]]), scheme="combinatorial")
    remedy = advice["75 % of the queries lie within 6 m of a class"]
    assert remedy == "with partition.min_images_per_class: 1 it is at least 100 %"
    assert told(photos, LONE, scheme="combinatorial", min_images_per_class=1) == {}


def test_queries_far_from_every_photo_are_counted(told):
    far = np.array([[25.0, 5.0], [5.0, 40.0], [5.0, 500.0]])
    assert told(FULL, far) == {
        "at least 2 of 3 queries are farther than 6 m from every database photo": (
            "add database photos there: no setting can place these queries"
        )
    }
    assert told(FULL, np.array([[5.0, 17.0]])) == {}  # 12 m from the centre, but a photo may be at the border
    assert told(FULL, np.empty((0, 2))) == {}


def test_groups_of_one_class_are_named(told):
    assert told(FULL[:8], None, groups_per_side=3) == {
        "2 of 9 groups hold a single class, so their heads have nothing to learn": (
            "set partition.groups_per_side: 1"
        )
    }


def test_unused_headings_are_named(told):
    ahead, around = np.zeros(len(FULL), np.float32), np.arange(len(FULL), dtype=np.float32) * 90
    advice = {
        "all photos have a heading, which these classes do not use": (
            "compare with partition.scheme: heading, which leaves 100 % of the photos in classes"
        )
    }
    assert told(FULL, None, {"heading": ahead}) == advice
    assert told(FULL, None, {"heading": around % 360}) == {}  # one photo in each direction
    assert told(FULL, None, {"heading": np.where(ahead == 0, np.nan, ahead).astype(np.float32)}) == {}
    assert told(FULL, None, {"heading": ahead}, scheme="heading") == {}


def test_cells_smaller_than_the_scatter_are_named(told):
    sideways = np.tile([0.0, 4.0], 40)  # a zigzag 8 m off the line between its neighbours
    walk = np.stack([np.arange(80) * 3.0, 2 * sideways], axis=1)
    times = [f"2025-12-22T09:{second // 60:02d}:{second % 60:02d}" for second in range(0, 160, 2)]
    columns = {"timestamp": times, "session": ["S1"] * 80}
    text = "a tenth of the photos lie 8 m or more off the path of their session, and a cell is 10 m wide: "
    text += "photos of one place fall into different cells"
    changes = {"min_images_per_class": 1}
    assert told(walk, None, columns, **changes) == {text: "set partition.cell_m: 20"}
    assert told(walk, None, columns, cell_m=20.0, **changes) == {}
    assert told(walk, None, {**columns, "timestamp": ["2025-12-22"] * 80}, **changes) == {}
    straight = walk * [10.0, 0.0] + [0.0, 5.0]  # 15 m/s, and no scatter
    assert told(straight, None, columns, **changes) == {}
    repeated = np.repeat(straight[::4], 4, axis=0)  # one fix for four photos
    assert told(repeated, None, columns, **changes) == {}
