"""The manifest: streamed, atomic, read by column or by range, and without double keys."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.errors import InputError
from stages.index.hashing import key_hashes, uniforms
from stages.index.manifest import ROW_GROUP_ROWS, Manifest
from stages.index.manifest_writer import DuplicateKeyError, write_manifest


def batch(keys, **further):
    rows = len(keys)
    columns = {
        "key": pa.array(keys, pa.string()),
        "utm_east": np.arange(rows) + 0.5,
        "utm_north": np.arange(rows) * 2.0,
        "heading": np.full(rows, np.nan, np.float32),
        "timestamp": pa.array([""] * rows, pa.string()),
    }
    return pa.record_batch({**columns, **further})


def write(path, batches, **changes):
    return write_manifest(
        path, batches, **{"root": Path("/photos"), "zone": "10S", "source": "names", **changes}
    )


def test_rows_come_back_in_order_with_their_columns(tmp_path):
    written = write(
        tmp_path / "m.parquet",
        [batch(["b.jpg", "a.jpg"], session=["S1", "S2"]), batch(["c.jpg"], session=["S3"])],
    )
    assert written.rows == 3
    assert written.column("key").tolist() == ["b.jpg", "a.jpg", "c.jpg"]
    assert written.column("session").tolist() == ["S1", "S2", "S3"]
    assert written.positions().tolist() == [[0.5, 0.0], [1.5, 2.0], [0.5, 0.0]]
    assert written.column("heading").dtype == np.float32
    assert (written.zone, written.source) == ("10S", "names")
    assert written.image_path("b.jpg") == Path("/photos/b.jpg")


@pytest.fixture(scope="module")
def long_manifest(tmp_path_factory):
    rows = 2 * ROW_GROUP_ROWS + 1000
    keys = [f"{i:07d}.jpg" for i in range(rows)]
    return write(tmp_path_factory.mktemp("m") / "m.parquet", [batch(keys[:5000]), batch(keys[5000:])])


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, 3),
        (4990, 5010),
        (5000, 5001),
        (5000 + ROW_GROUP_ROWS - 2, 5000 + ROW_GROUP_ROWS + 2),
        (7, 7),
        (-5, 2),
    ],
)
def test_keys_of_a_range_across_row_groups(long_manifest, start, stop):
    assert long_manifest.keys(start, stop) == [f"{i:07d}.jpg" for i in range(max(start, 0), stop)]


def test_keys_stop_at_the_last_row(long_manifest):
    assert long_manifest.keys(long_manifest.rows - 1, long_manifest.rows + 9) == [
        f"{long_manifest.rows - 1:07d}.jpg"
    ]


def test_keys_of_a_range_do_not_read_the_other_row_groups(long_manifest, monkeypatch):
    read = []
    monkeypatch.setattr(
        Manifest, "_read", lambda self, columns, groups: read.append(groups) or pa.table({"key": ["x"]})
    )
    long_manifest.keys(10, 20)
    assert [list(groups) for groups in read] == [[0]]


def test_the_digest_depends_on_content_alone(tmp_path):
    keys = [f"{i}.jpg" for i in range(50)]
    whole = batch(keys)
    one = write(tmp_path / "1.parquet", [whole])
    two = write(tmp_path / "2.parquet", [whole.slice(0, 7), whole.slice(7)], root=Path("/elsewhere"))
    moved = whole.set_column(1, "utm_east", pa.array(np.arange(50) + 0.25))
    assert one.digest == two.digest
    assert write(tmp_path / "3.parquet", [moved]).digest != one.digest
    assert write(tmp_path / "4.parquet", [batch([*keys[:-1], "x.jpg"])]).digest != one.digest


def test_a_relative_root_moves_with_the_project(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    write(Path("data/index/m.parquet"), [batch(["a.jpg"])], root=Path("photos"))
    (tmp_path / "one").rename(tmp_path / "two")
    assert (
        Manifest.open(tmp_path / "two/data/index/m.parquet").image_path("a.jpg")
        == tmp_path / "two/photos/a.jpg"
    )


def test_repeated_keys_are_rejected_and_named(tmp_path):
    with pytest.raises(DuplicateKeyError, match=r"2 images .*\(a\.jpg, b\.jpg\)") as caught:
        write(tmp_path / "m.parquet", [batch(["a.jpg", "b.jpg"]), batch(["c.jpg", "a.jpg", "b.jpg"])])
    assert caught.value.rows.tolist() == [3, 4]
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "m.parquet"
    old = write(path, [batch(["a.jpg"])]).digest

    def broken():
        yield batch(["b.jpg"])
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        write(path, broken())
    assert Manifest.open(path).digest == old
    assert list(tmp_path.iterdir()) == [path]


def test_no_rows_and_wrong_columns_are_rejected(tmp_path):
    with pytest.raises(InputError, match="no image"):
        write(tmp_path / "m.parquet", [])
    with pytest.raises(InputError, match="column heading of type float"):
        write(tmp_path / "m.parquet", [batch(["a"]).drop_columns(["heading"])])
    with pytest.raises(InputError, match="column utm_east of type double"):
        write(tmp_path / "m.parquet", [batch(["a"]).set_column(1, "utm_east", pa.array(["1"]))])


def test_opening_another_file_names_the_command(tmp_path):
    with pytest.raises(InputError, match="pipeline index"):
        Manifest.open(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no parquet here")
    with pytest.raises(InputError, match="not a readable Parquet"):
        Manifest.open(tmp_path / "text.parquet")
    manifest = write(tmp_path / "m.parquet", [batch(["a.jpg"])])
    with pytest.raises(InputError, match="no column 'light': it has key, utm_east"):
        manifest.column("light")


def test_arrays_are_writable(tmp_path):
    manifest = write(tmp_path / "m.parquet", [batch(["a.jpg"])])
    assert manifest.column("utm_east").flags.writeable


@given(st.lists(st.text(max_size=40), max_size=30), st.integers(0, 10))
def test_hashes_are_distinct_and_independent_of_batches(keys, cut):
    array = pa.array(keys, pa.string())
    hashes = key_hashes(array)
    assert np.concatenate([key_hashes(array[:cut]), key_hashes(array[cut:])]).tolist() == hashes.tolist()
    assert len(set(hashes.tolist())) == len(set(keys))


def test_similar_keys_have_unrelated_hashes():
    keys = [f"@{i:07d}.00@4178906.70@10@S@{j:03d}.jpg" for i in range(300) for j in range(300)]
    hashes = key_hashes(pa.array(keys))
    assert len(np.unique(hashes)) == len(keys)
    assert len(np.unique(hashes >> np.uint64(32))) > 0.999 * len(keys)
    draws = uniforms(hashes, seed=1)
    assert np.allclose(np.histogram(draws, 10, (0, 1))[0] / len(keys), 0.1, atol=0.005)
    assert abs(np.corrcoef(draws, uniforms(hashes, seed=2))[0, 1]) < 0.02
