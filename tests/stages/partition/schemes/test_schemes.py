"""The other ways to cut a city: what holds for each, whatever the images."""

import shutil
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pipeline.cli import main
from pipeline.project.init import set_params, template
from stages.errors import ConfigError, InputError
from stages.partition import grid
from stages.partition.classes import ClassTable, in_class
from stages.partition.config import CombinatorialConfig, HeadingConfig, HierarchyConfig, QuadtreeConfig
from stages.partition.places import Places
from stages.partition.schemes.registry import SCHEMES
from stages.partition.stage import PartitionInputs, _class_table, run
from stages.partition.tail_augmentation import long_tail
from tests.stages.partition.test_stage import config, manifest_of

ORIGIN = np.array([543_000.0, 4_178_000.0])
SCHEME_NAMES = sorted(SCHEMES)


@dataclass
class Photos:
    """Images for a scheme to cut, in memory."""

    where: np.ndarray
    heading: np.ndarray

    def positions(self):
        return self.where

    def column(self, name):
        return getattr(self, name)


def photos(count=400, seed=0, heading=None):
    random = np.random.default_rng(seed)
    where = ORIGIN + random.exponential(25, (count, 2)) - 30
    return Photos(where, random.uniform(0, 360, count).astype(np.float32) if heading is None else heading)


some = st.builds(
    lambda where, seed: Photos(
        where, np.random.default_rng(seed).uniform(0, 360, len(where)).astype(np.float32)
    ),
    npst.arrays(np.float64, st.tuples(st.integers(8, 60), st.just(2)), elements=st.floats(-45, 45)),
    st.integers(0, 9),
)


def cut_or_none(images, scheme, **changes):
    settings_of = config(scheme=scheme, **changes)
    try:
        cuts = SCHEMES[scheme](images, settings_of)
    except InputError:  # no cell is full enough
        return None, None
    return cuts, _class_table(cuts, [long_tail(cut.images, settings_of) for cut in cuts], settings_of, "")


@given(some, st.sampled_from(SCHEME_NAMES), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_images_lie_in_their_class_and_classes_are_disjoint(images, scheme, side):
    cuts, classes = cut_or_none(images, scheme, groups_per_side=side)
    if cuts is None:
        return
    cells, first = grid.cells(images.where, 10.0), 0
    for cut in cuts:
        inside = cut.labels >= 0
        label = cut.labels[inside]
        apart = cells[inside] - cut.cells[label]
        assert ((apart >= 0) & (apart < cut.span[label, None])).all()
        assert np.bincount(label, minlength=len(cut.images)).tolist() == cut.images.tolist()
        assert cut.images.min() >= 2
        if cut.heading is not None:
            turned = (images.heading[inside].astype(np.float64) + 30) % 360
            assert (turned // 60 == cut.heading[label]).all()
        covered = [
            (p + i, q + j, 0 if cut.heading is None else cut.heading[number])
            for number, ((p, q), span) in enumerate(zip(cut.cells.tolist(), cut.span.tolist(), strict=True))
            for i in range(span)
            for j in range(span)
        ]
        assert len(covered) == len(set(covered))
        keys = list(zip(cut.group.tolist(), cut.cells.tolist(), strict=True))
        assert keys == sorted(keys)
        first += len(cut.images)
    assert first == len(classes)
    assert (np.diff(classes.group) >= 0).all()
    assert classes.group.max() < classes.groups


@given(some, st.sampled_from(SCHEME_NAMES), st.integers(0, 9))
@settings(max_examples=80, deadline=None)
def test_the_order_of_images_does_not_change_classes(images, scheme, seed):
    cuts, _ = cut_or_none(images, scheme)
    order = np.random.default_rng(seed).permutation(len(images.where))
    again, _ = cut_or_none(Photos(images.where[order], images.heading[order]), scheme)
    if cuts is None:
        assert again is None
        return
    for one, other in zip(cuts, again, strict=True):
        np.testing.assert_array_equal(one.labels[order], other.labels)
        for name in ("cells", "span", "group", "images", "heading"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@given(some, st.integers(1, 8), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_a_quadtree_splits_only_cells_with_too_many_images(images, most, levels):
    cuts, _ = cut_or_none(images, "quadtree", quadtree=QuadtreeConfig(most, levels), min_images_per_class=1)
    (cut,) = cuts
    assert (cut.labels >= 0).all()
    cells = grid.cells(images.where, 10.0)
    assert ((cut.images <= most) | (cut.span == 1)).all()
    for corner, span in zip(cut.cells, cut.span, strict=True):
        if span < 1 << levels:
            parent = corner // (2 * span) * (2 * span)
            inside = ((cells >= parent) & (cells < parent + 2 * span)).all(axis=1)
            assert inside.sum() > most


MEETING = [
    ("hierarchy", HierarchyConfig((2,))),
    ("hierarchy", HierarchyConfig((3, 6))),
    ("combinatorial", CombinatorialConfig(2)),
    ("combinatorial", CombinatorialConfig(3)),
]


@given(some, st.sampled_from(MEETING))
@settings(max_examples=100, deadline=None)
def test_a_place_is_the_intersection_of_its_classes(images, kind):
    scheme, setting = kind
    cuts, classes = cut_or_none(images, scheme, **{scheme: setting})
    if cuts is None:
        return
    places = Places.of(classes)
    outlines = classes.outlines
    for place in range(len(places)):
        votes = places.votes[place]
        low = outlines[votes, :2].max(axis=0)
        high = (outlines[votes, :2] + outlines[votes, 2:3]).min(axis=0)
        assert (low == [places.p[place], places.q[place]]).all()
        if scheme == "combinatorial":
            assert (high - low == 1).all()
        parts = [classes.partition_slice(i) for i in range(classes.partitions)]
        assert all(part.start <= vote < part.stop for part, vote in zip(parts, votes, strict=True))
    cells = list(zip(places.p.tolist(), places.q.tolist(), strict=True))
    assert len(cells) == len(set(cells))
    at = places.at(images.where)
    labels = np.stack([cut.labels for cut in cuts], axis=1)
    assert ((at >= 0) == (labels >= 0).all(axis=1)).all()
    starts = [classes.partition_slice(i).start for i in range(classes.partitions)]
    np.testing.assert_array_equal(places.votes[at[at >= 0]], (labels + starts)[at >= 0])


def test_a_hierarchy_starts_with_the_grid():
    images = photos()
    (plain,), _ = cut_or_none(images, "grid")
    cuts, classes = cut_or_none(images, "hierarchy")
    np.testing.assert_array_equal(cuts[0].labels, plain.labels)
    np.testing.assert_array_equal(cuts[0].cells, plain.cells)
    assert [int(cut.span[0]) for cut in cuts] == [1, 2, 4]
    assert len(Places.of(classes)) == len(plain.cells)


def test_headings_of_a_group_are_apart_and_places_are_cells():
    images = photos(2000)
    (cut,), classes = cut_or_none(images, "heading", heading=HeadingConfig(30.0, 3), groups_per_side=2)
    (plain,), _ = cut_or_none(images, "grid")
    assert (cut.group == grid.group_of(cut.cells, 2) * 3 + cut.heading % 3).all()
    assert classes.groups == 12
    for group in range(12):
        mine = np.flatnonzero(cut.group == group)
        turn = np.abs(cut.heading[mine, None] - cut.heading[mine])
        assert set(np.minimum(turn, 12 - turn).ravel().tolist()) <= {0, 3, 6}
    places = Places.of(classes)
    assert len(places) == len(np.unique(cut.cells, axis=0)) <= len(plain.cells)
    assert sorted(places.votes[places.votes >= 0].tolist()) == list(range(len(classes)))
    for place, votes in enumerate(places.votes):
        mine = votes[votes >= 0]
        assert (cut.cells[mine] == [places.p[place], places.q[place]]).all()
        assert places.images[place] == cut.images[mine].sum()
        assert (np.diff(cut.images[mine]) <= 0).all()


def test_north_is_the_middle_of_the_first_bin():
    heading = np.array([0.0, 345.0, -0.01, 360.0, 14.9, 15.0, 344.9] * 2, np.float32)
    images = Photos(np.tile(ORIGIN, (14, 1)), heading)
    (cut,) = SCHEMES["heading"](images, config(scheme="heading", heading=HeadingConfig(30.0, 2)))
    assert cut.heading[cut.labels[:7]].tolist() == [0, 0, 0, 0, 0, 1, 11]


@pytest.mark.parametrize("scheme", SCHEME_NAMES)
def test_a_run_writes_tables_that_come_back(tmp_path, scheme):
    images = photos(1500)
    manifest = manifest_of(tmp_path / "m.parquet", images.where, heading=images.heading)
    result = run(PartitionInputs(config(scheme=scheme), manifest, tmp_path, seed=0))
    classes, labels = ClassTable.load(tmp_path / "classes.parquet"), np.load(tmp_path / "labels.npy")
    assert labels.shape == (
        (1500, 3) if scheme == "hierarchy" else (1500, 2) if scheme == "combinatorial" else (1500,)
    )
    assert (result.classes, result.places) == (len(classes), len(Places.of(classes)))
    assert result.images_in_classes == in_class(labels).sum()
    assert np.bincount(labels[labels >= 0], minlength=len(classes)).tolist() == classes.images.tolist()
    assert len(result.classes_per_group) == classes.groups
    inside = labels.reshape(1500, -1)[:, -1] >= 0
    label = labels.reshape(1500, -1)[inside, -1]
    side = classes.spans[label, None] * 10.0
    assert (np.abs(images.where[inside] - classes.centres[label]) <= side / 2).all()
    assert ("scheme", scheme) in result.facts()


def test_grids_without_a_common_cell_are_rejected(tmp_path):
    corner = np.array([[0, 0], [0, 1], [1, 0]])
    cells = np.concatenate([corner, corner + 101])  # a class of the first grid, one of the second
    manifest = manifest_of(tmp_path / "m.parquet", ORIGIN + 10.0 * cells + 5)
    settings_of = config(scheme="combinatorial", min_images_per_class=3, cell_m=10.0)
    with pytest.raises(InputError, match="no cell of 10 m lies in a class of each of the 2 partitions"):
        run(PartitionInputs(settings_of, manifest, tmp_path, seed=0))
    assert not (tmp_path / "classes.parquet").exists()


def test_images_without_a_heading_are_counted(tmp_path):
    images = photos(50)
    images.heading[[7, 9]] = np.nan
    manifest = manifest_of(tmp_path / "m.parquet", images.where, heading=images.heading)
    with pytest.raises(
        InputError, match=r"2 of 50 images have no heading \(the first is row 7\).*partition.scheme"
    ):
        run(PartitionInputs(config(scheme="heading"), manifest, tmp_path, seed=0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "4 of 40 images have no heading"),
        ({"partition.scheme": "hexagons"}, "partition.scheme is 'hexagons': expected grid | quadtree"),
        ({"partition.heading.bin_deg": 50.0}, "partition.heading.bin_deg is 50"),
        ({"partition.hierarchy.coarser": [3, 2]}, "partition.hierarchy.coarser is [3, 2]"),
    ],
)
def test_the_command_prints_one_line_for_a_bad_scheme(tmp_path, capsys, changes, message):
    images = photos(40)
    images.heading[:4] = np.nan
    manifest_of(tmp_path / "data/index/database.parquet", images.where, heading=images.heading)
    shutil.copyfile(template("params.yaml"), tmp_path / "params.yaml")
    set_params(tmp_path / "params.yaml", {"partition.scheme": "heading", **changes})
    with pytest.raises(SystemExit) as stopped:
        main(["--project", str(tmp_path), "partition"])
    errors = capsys.readouterr().err.strip()
    assert stopped.value.code == 1
    assert errors.startswith("error: ")
    assert message in errors
    assert "\n" not in errors


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: QuadtreeConfig(0, 3), "quadtree.max_images is 0"),
        (lambda: QuadtreeConfig(5, -1), "quadtree.levels is -1"),
        (lambda: HierarchyConfig(()), r"hierarchy.coarser is \[\]"),
        (lambda: HierarchyConfig((2, 3)), r"hierarchy.coarser is \[2, 3\]"),
        (lambda: CombinatorialConfig(1), "combinatorial.grids is 1"),
        (lambda: HeadingConfig(50.0, 1), "heading.bin_deg is 50"),
        (lambda: HeadingConfig(60.0, 4), "heading.groups is 4: expected 1 or another divisor of the 6 bins"),
    ],
)
def test_settings_out_of_range_are_rejected(make, key):
    with pytest.raises(ConfigError, match=f"partition.{key}"):
        make()


@given(st.integers(1, 4), st.integers(-9, 9), st.integers(-9, 9), st.integers(-5, 5))
def test_each_cell_of_a_square_finds_the_square(span, p, q, offset):
    corners = np.array([[p, q], [p + 1, q - 1]]) * span + offset % span
    cells = corners.repeat(span * span, 0) + np.tile(
        np.stack(np.divmod(np.arange(span * span), span), 1), (2, 1)
    )
    found = grid.squares_with(cells, corners, np.full(2, span))
    assert found.tolist() == np.arange(2).repeat(span * span).tolist()
    assert grid.squares_with(corners - 1, corners[1:], np.full(1, span))[1] == -1
