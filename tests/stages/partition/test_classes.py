"""The classes table and the view plan, as other stages use them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.errors import InputError
from stages.partition.classes import ClassTable
from stages.partition.views import ViewPlan


def table():
    return ClassTable(
        group=np.array([0, 0, 3], np.int32),
        index=np.array([0, 1, 0], np.int32),
        p=np.array([0, 2, -1]),
        q=np.array([0, 0, 1]),
        centres=np.array([[5.0, 5.0], [25.0, 5.0], [-5.0, 15.0]]),
        images=np.array([5, 60, 7]),
        bucket=np.array(["tail", "head", "mid"]),
        p_aug=np.array([0.5, 0.0, 0.25], np.float32),
        cell_m=10.0,
        groups_per_side=2,
        zone="10S",
    )


def test_a_table_comes_back_as_it_was(tmp_path):
    table().save(tmp_path / "classes.parquet")
    back = ClassTable.load(tmp_path / "classes.parquet")
    for name, value in vars(table()).items():
        np.testing.assert_array_equal(getattr(back, name), value)
        assert np.asarray(getattr(back, name)).dtype == np.asarray(value).dtype
    assert back.centres.flags.writeable


def test_the_file_has_the_promised_columns(tmp_path):
    table().save(tmp_path / "classes.parquet")
    schema = pq.read_schema(tmp_path / "classes.parquet")
    assert schema.names == ["group", "index", "p", "q", "utm_east", "utm_north", "images", "bucket", "p_aug"]
    assert b"placecache" in schema.metadata


def test_group_slices_cover_the_classes_even_of_empty_groups():
    assert [table().group_slice(group) for group in range(4)] == [
        slice(0, 2),
        slice(2, 2),
        slice(2, 2),
        slice(2, 3),
    ]
    assert (len(table()), table().groups) == (3, 4)


def test_loading_another_file_is_rejected(tmp_path):
    with pytest.raises(InputError, match="pipeline partition"):
        ClassTable.load(tmp_path / "none.parquet")
    pq.write_table(pa.table({"group": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(InputError, match="no placecache metadata"):
        ClassTable.load(tmp_path / "foreign.parquet")
    ViewPlan.of_counts(np.array([1])).save(tmp_path / "views.parquet")
    with pytest.raises(InputError, match="not a classes table"):
        ClassTable.load(tmp_path / "views.parquet")
    table().save(tmp_path / "classes.parquet")
    with pytest.raises(InputError, match="not a view plan"):
        ViewPlan.load(tmp_path / "classes.parquet")


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_a_plan_gives_every_image_its_count(counts):
    plan = ViewPlan.of_counts(np.array(counts))
    assert len(plan) == sum(counts)
    rows = np.arange(len(counts))[::-1]
    start, count = plan.offsets(rows)
    assert count.tolist() == counts[::-1]
    for row in range(len(counts)):
        views = plan.of(row)
        assert plan.row[views].tolist() == [row] * counts[row]
        assert plan.view[views].tolist() == list(range(counts[row]))
        assert start[::-1][row] == views.start


def test_a_plan_comes_back_as_it_was(tmp_path):
    plan = ViewPlan.of_counts(np.array([0, 2, 0, 3], np.int16))
    plan.save(tmp_path / "views.parquet")
    back = ViewPlan.load(tmp_path / "views.parquet")
    assert back.row.tolist() == [1, 1, 3, 3, 3]
    assert back.view.tolist() == [0, 1, 0, 1, 2]
    assert (back.row.dtype, back.view.dtype) == (np.int64, np.int16)


def test_a_stored_plan_notes_its_digest_and_last_row(tmp_path, monkeypatch):
    path, plan = tmp_path / "views.parquet", ViewPlan.of_counts(np.array([0, 2, 0, 3, 0]))
    plan.save(path, "images")
    back = ViewPlan.load(path)
    assert back.row_digest("others") == plan.row_digest("others")  # reads the columns
    plan.save(tmp_path / "older.parquet")
    older = ViewPlan.load(tmp_path / "older.parquet")
    assert (older.row_digest("images"), older.last_row) == (plan.row_digest("images"), 3)

    def no_columns(*_, **__):
        raise AssertionError("the columns were read, although the note states what is asked")

    monkeypatch.setattr("stages.partition.views.read_table", no_columns)
    back = ViewPlan.load(path)
    assert (len(back), back.row_digest("images"), back.last_row) == (5, plan.row_digest("images"), 3)


def test_a_plan_replaced_after_it_was_opened_is_rejected(tmp_path):
    path, plan = tmp_path / "views.parquet", ViewPlan.of_counts(np.array([0, 2]))
    plan.save(path, "images")
    back = ViewPlan.load(path)
    ViewPlan.of_counts(np.array([1, 1])).save(path, "images")
    with pytest.raises(InputError, match="was written again meanwhile: run the same command again"):
        _ = back.row


def test_an_empty_plan_can_be_stored(tmp_path):
    ViewPlan.of_counts(np.zeros(5, np.int16)).save(tmp_path / "views.parquet")
    assert len(ViewPlan.load(tmp_path / "views.parquet")) == 0
