"""The partition: classes by cell, numbered by group, and the view plan of the long tail."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from stages.errors import ConfigError, InputError
from stages.index.hashing import uniforms
from stages.index.manifest_writer import write_manifest
from stages.partition import grid
from stages.partition.cells import cut
from stages.partition.classes import ClassTable
from stages.partition.config import (
    CombinatorialConfig,
    HeadingConfig,
    HierarchyConfig,
    PartitionConfig,
    QuadtreeConfig,
)
from stages.partition.stage import PartitionInputs, run
from stages.partition.tail_augmentation import long_tail, view_counts
from stages.partition.views import ViewPlan


def config(**changes):
    plain = {
        "scheme": "grid",
        "cell_m": 10.0,
        "groups_per_side": 2,
        "min_images_per_class": 2,
        "tail_quantile": 0.5,
        "head_quantile": 0.9,
        "p_max": 0.5,
        "p_min": 0.0,
        "gamma": 1.0,
        "max_views": 4,
        "quadtree": QuadtreeConfig(max_images=8, levels=3),
        "hierarchy": HierarchyConfig(coarser=(2, 4)),
        "combinatorial": CombinatorialConfig(grids=2),
        "heading": HeadingConfig(bin_deg=60.0, groups=2),
    }
    return PartitionConfig(**{**plain, **changes})


def cut_of(positions, cell_m=10.0, groups_per_side=2, min_images=2):
    return cut(positions, cell_m=cell_m, groups_per_side=groups_per_side, min_images=min_images)


def slow_cut(positions, cell_m, groups_per_side, min_images):
    """Return the classes as a loop over the definition finds them: cells in class order, and labels."""
    cells = [tuple(cell) for cell in grid.cells(positions, cell_m).tolist()]
    kept = [cell for cell in set(cells) if cells.count(cell) >= min_images]
    group = {cell: cell[0] % groups_per_side * groups_per_side + cell[1] % groups_per_side for cell in kept}
    order = sorted(kept, key=lambda cell: (group[cell], cell))
    return order, [order.index(cell) if cell in order else -1 for cell in cells]


few = npst.arrays(np.float64, st.tuples(st.integers(1, 40), st.just(2)), elements=st.floats(-45, 45))


@given(few, st.sampled_from([5.0, 10.0, 30.0]), st.integers(1, 3), st.integers(1, 3), st.booleans())
@settings(max_examples=200)
def test_the_cut_agrees_with_a_plain_loop(positions, cell_m, groups_per_side, min_images, scattered):
    if scattered:
        # One point far off makes the box so large that cells are sorted instead of counted in a table.
        positions = np.vstack([positions, [[1.5e7, -1.5e7]]])
    order, labels = slow_cut(positions, cell_m, groups_per_side, min_images)
    if not order:
        with pytest.raises(InputError, match="no cell of"):
            cut_of(positions, cell_m, groups_per_side, min_images)
        return
    pieces = cut_of(positions, cell_m, groups_per_side, min_images)
    assert [tuple(cell) for cell in pieces.cells.tolist()] == order
    assert pieces.labels.tolist() == labels
    assert pieces.images.tolist() == [labels.count(i) for i in range(len(order))]


def test_blocks_do_not_change_the_cut(monkeypatch):
    positions = np.random.default_rng(0).uniform(543_000, 543_600, (5000, 2))
    whole = cut_of(positions)
    monkeypatch.setattr("stages.partition.cells.BLOCK_ROWS", 77)
    pieces = cut_of(positions)
    np.testing.assert_array_equal(pieces.labels, whole.labels)
    np.testing.assert_array_equal(pieces.cells, whole.cells)


def test_the_error_states_the_images_of_the_fullest_cell():
    with pytest.raises(InputError, match=r"keeps 3 images, the fullest holds 2: raise partition.cell_m"):
        cut_of(np.array([[1.0, 1.0], [2.0, 2.0], [55.0, 5.0]]), min_images=3)


def test_probabilities_fall_with_the_image_count():
    images = np.array([2, 4, 4, 8, 16, 400])
    tail = long_tail(images, config(p_min=0.01))
    assert tail.tail_count == 4
    np.testing.assert_allclose(tail.p_aug, [0.5, 0.5, 0.5, 0.25, 0.125, 0.01])
    assert tail.bucket.tolist() == ["tail", "tail", "tail", "mid", "mid", "head"]
    steeper = long_tail(images, config(gamma=2.0))
    np.testing.assert_allclose(steeper.p_aug[3:], [0.125, 0.03125, 0.5 * 1e-4])


def test_equal_classes_are_all_tail():
    assert set(long_tail(np.full(7, 9), config()).bucket) == {"tail"}


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=50), st.floats(0, 0.9), st.floats(0, 3))
def test_rarer_classes_are_never_augmented_less(counts, quantile, gamma):
    images = np.sort(np.array(counts))
    tail = long_tail(images, config(tail_quantile=quantile, gamma=gamma))
    assert tail.tail_count in counts
    assert (np.diff(tail.p_aug) <= 0).all()
    assert (tail.p_aug[images <= tail.tail_count] == np.float32(0.5)).all()


def test_the_mean_number_of_views_is_as_expected():
    rows = 200_000
    hashes = np.arange(rows, dtype=np.uint64)
    p_aug = np.array([0.5, 0.2, 0.01], np.float32)
    labels = np.tile(np.array([0, 1, 2, -1], np.int32), rows // 4)
    views = view_counts(labels, hashes, p_aug, config(), seed=3)
    means = [views[labels == label].mean() for label in (0, 1, 2, -1)]
    np.testing.assert_allclose(means, [4.0, 1.6, 0.08, 0.0], atol=0.01)
    assert set(views[labels == 1]) == {1, 2}
    assert set(views[labels == 0]) == {4}


@pytest.mark.parametrize("changes", [{"p_max": 0.0}, {"max_views": 0}])
def test_no_views_where_none_are_wanted(changes):
    labels = np.zeros(10, np.int32)
    views = view_counts(
        labels, np.arange(10, dtype=np.uint64), np.array([0.0], np.float32), config(**changes), seed=0
    )
    assert views.tolist() == [0] * 10


def test_draws_depend_on_key_and_seed_alone():
    hashes = np.arange(1000, dtype=np.uint64)
    assert uniforms(hashes, 1)[::-1].tolist() == uniforms(hashes[::-1], 1).tolist()
    assert uniforms(hashes, 1).tolist() != uniforms(hashes, 2).tolist()
    assert uniforms(hashes, -1).max() < 1


def manifest_of(path, positions, prefix="", heading=None, timestamp=None, session=None):
    rows = len(positions)
    columns = {
        "key": pa.array([f"{prefix}{i:06d}.jpg" for i in range(rows)]),
        "utm_east": np.ascontiguousarray(positions[:, 0]),
        "utm_north": np.ascontiguousarray(positions[:, 1]),
        "heading": np.full(rows, np.nan, np.float32) if heading is None else heading,
        "timestamp": pa.array(timestamp or [""] * rows),
    }
    if session is not None:
        columns["session"] = pa.array(session)
    write_manifest(path, [pa.record_batch(columns)], root=Path("/photos"), zone="10S", source="names")
    return path


@pytest.fixture
def streets():
    rng = np.random.default_rng(0)
    return np.array([543_000.0, 4_178_000.0]) + rng.exponential(60, (4000, 2))


def test_a_run_writes_what_its_result_counts(tmp_path, streets):
    seen = []
    manifest = manifest_of(tmp_path / "m.parquet", streets)
    inputs = PartitionInputs(config(), manifest, tmp_path / "part", seed=0)
    result = run(inputs, progress=lambda *at: seen.append(at))
    classes = ClassTable.load(tmp_path / "part/classes.parquet")
    labels = np.load(tmp_path / "part/labels.npy")
    plan = ViewPlan.load(tmp_path / "part/views.parquet")
    assert seen[-1] == (4000, 4000)
    assert (result.rows, result.classes, result.views) == (4000, len(classes), len(plan))
    assert result.images_in_classes == (labels >= 0).sum() == classes.images.sum()
    assert result.images_dropped == (labels < 0).sum() > 0
    assert result.head + result.mid + result.tail == result.classes
    assert sum(result.classes_per_group) == result.classes
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(labels[labels >= 0]), classes.images)
    inside = labels >= 0
    assert (np.abs(streets[inside] - classes.centres[labels[inside]]) <= 5).all()
    for group in range(4):
        ids = classes.group_slice(group)
        assert classes.index[ids].tolist() == list(range(ids.stop - ids.start))
        cells = list(zip(classes.p[ids].tolist(), classes.q[ids].tolist(), strict=True))
        assert cells == sorted(cells)
    counts = plan.offsets(np.arange(4000))[1]
    assert (counts[~inside] == 0).all()
    assert (counts[inside][classes.bucket[labels[inside]] == "tail"] == 4).all()
    assert ("planned views", result.views) in result.facts()


def test_runs_with_one_seed_are_byte_identical(tmp_path, streets):
    manifest = manifest_of(tmp_path / "m.parquet", streets)
    for folder in ("one", "two"):
        run(PartitionInputs(config(), manifest, tmp_path / folder, seed=5))
    for file in ("classes.parquet", "labels.npy", "views.parquet"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    run(PartitionInputs(config(), manifest, tmp_path / "other", seed=6))
    assert (tmp_path / "one/views.parquet").read_bytes() != (tmp_path / "other/views.parquet").read_bytes()
    assert (tmp_path / "one/labels.npy").read_bytes() == (tmp_path / "other/labels.npy").read_bytes()


def test_a_missing_manifest_names_the_command(tmp_path):
    with pytest.raises(InputError, match="pipeline index"):
        run(PartitionInputs(config(), tmp_path / "none.parquet", tmp_path, seed=0))


@pytest.mark.parametrize(
    "changes", [{"cell_m": 0.0}, {"cell_m": -5.0}, {"gamma": -1.0}, {"p_max": 1.5}, {"tail_quantile": 2.0}]
)
def test_settings_out_of_range_are_rejected(changes):
    with pytest.raises(ConfigError, match=f"partition.{next(iter(changes))} is"):
        config(**changes)
