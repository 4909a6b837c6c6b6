"""Feature stores: create, open, read, write, move aside; a kill does no harm."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import RecipeMismatch, StoreError
from cache.integrity import check_chunk
from cache.ledger import BadRow
from cache.reader import FeatureReader
from cache.recipe import Recipe
from cache.row_identity import RowIdentities, row_ids
from cache.spec import MAX_CHUNK_ROWS, MIN_CHUNK_ROWS, StoreSpec
from cache.storage.paths import AnyPath, LocalPath, storage_path
from cache.store import create_or_open, drop_reusable, open_store, reusable
from cache.timings import log_timing, total_timings
from cache.writer import ChunkWriter

OUTPUTS = {"cls": 6, "avg": 4}
RECIPE = Recipe(
    backbone="tiny",
    weights="random",
    weights_id="ab" * 32,
    image_size=28,
    preprocessing={"resize": 32, "mean": [0.5, 0.5, 0.5]},
    outputs=OUTPUTS,
    dtype="float16",
    precision="float32",
)


def ids(rows: int, offset: int = 0) -> RowIdentities:
    return RowIdentities.of(row_ids(f"image{row + offset}" for row in range(rows)))


def features(spec: StoreSpec, chunk: int) -> dict[str, np.ndarray]:
    rows = spec.chunk_slice(chunk)
    numbers = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
    return {name: numbers / 8 + np.arange(length) for name, length in spec.outputs.items()}


def filled(path: AnyPath, rows: int = 150, chunks: list[int] | None = None):
    spec = StoreSpec(rows, OUTPUTS, "float16", 64)
    store = create_or_open(path, spec, RECIPE, ids(rows))
    writer = ChunkWriter(store)
    for chunk in range(spec.chunks) if chunks is None else chunks:
        writer.write(chunk, features(spec, chunk))
    return store


def content(folder: AnyPath) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in sorted(storage_path(folder).sizes())}


def test_row_ids_match_the_format():
    identities = row_ids(f"Straße {row}.jpg" for row in range(70_000))
    for row in (0, 65_535, 65_536, 69_999):
        digest = hashlib.blake2b(f"Straße {row}.jpg".encode(), digest_size=8).digest()
        assert identities[row] == int.from_bytes(digest, "little")
    assert len(identities) == 70_000
    assert row_ids([]).shape == (0,)


@given(rows=st.integers(0, 3_000_000), shards=st.integers(1, 300))
def test_shards_cover_every_chunk_once_on_chunk_borders(rows, shards):
    spec = StoreSpec.for_rows(rows, OUTPUTS, "float16")
    assert MIN_CHUNK_ROWS <= spec.chunk_rows <= MAX_CHUNK_ROWS
    assert spec.chunk_rows & (spec.chunk_rows - 1) == 0
    chunks = [chunk for shard in range(shards) for chunk in spec.shard_chunks(shard, shards)]
    assert chunks == list(range(spec.chunks))
    for shard in range(shards):
        for chunk in list(spec.shard_chunks(shard, shards))[:2]:
            assert spec.shard_of_chunk(chunk, shards) == shard
            assert spec.chunk_slice(chunk).start % spec.chunk_rows == 0
    if rows:
        assert spec.chunk_slice(spec.chunks - 1).stop == rows


@given(
    rows=st.integers(0, 3_000_000),
    length=st.sampled_from([384, 768, 1024, 1280, 1536]),
    dtype=st.sampled_from(["float16", "float32"]),
)
def test_chunk_rows_of_pooled_outputs_depend_on_rows_only(rows, length, dtype):
    spec = StoreSpec.for_rows(rows, {"cls": length, "avg": length}, dtype)
    powers = [64 << doubled for doubled in range(8)]
    assert spec.chunk_rows == next((power for power in powers if 64 * power >= rows), 8192)
    assert spec.row_bytes == 2 * length * np.dtype(dtype).itemsize


@given(
    rows=st.integers(0, 3_000_000),
    length=st.integers(1, 60_000_000),
    dtype=st.sampled_from(["float16", "float32"]),
)
def test_no_chunk_is_above_its_limit_of_bytes(rows, length, dtype):
    spec = StoreSpec.for_rows(rows, {"avg": 384, "cut10": length}, dtype)
    chunk_bytes = spec.chunk_rows * length * np.dtype(dtype).itemsize
    assert spec.chunk_rows == 1 or chunk_bytes <= 64 << 20
    assert spec.chunk_rows & (spec.chunk_rows - 1) == 0
    unbound = StoreSpec.for_rows(rows, {"avg": 384}, dtype).chunk_rows
    assert spec.chunk_rows == unbound or 2 * chunk_bytes > 64 << 20
    if rows:
        assert spec.chunk_slice(spec.chunks - 1).stop == rows


def test_invalid_specs_are_rejected():
    for bad in (
        {"rows": -1},
        {"chunk_rows": 0},
        {"outputs": {}},
        {"outputs": {"cls": 0}},
        {"dtype": "int8"},
    ):
        with pytest.raises(StoreError):
            replace(StoreSpec(10, OUTPUTS, "float16", 64), **bad)
    for rows, outputs, dtype in ((-1, OUTPUTS, "float16"), (10, {}, "float16"), (10, OUTPUTS, "int8")):
        with pytest.raises(StoreError):
            StoreSpec.for_rows(rows, outputs, dtype)
    spec = StoreSpec(10, OUTPUTS, "float16", 64)
    with pytest.raises(StoreError, match="chunk 1 does not exist"):
        spec.chunk_slice(1)
    with pytest.raises(StoreError, match="shard 4 does not exist: expected 0 to 3"):
        spec.shard_chunks(4, 4)


def test_recipe_ids_and_differences():
    assert RECIPE.id == Recipe.from_dict(RECIPE.to_dict()).id
    assert replace(RECIPE, weights="elsewhere.pth").id == RECIPE.id
    other = replace(RECIPE, image_size=98, preprocessing={"resize": 112, "mean": [0.5, 0.5, 0.5]})
    assert other.id != RECIPE.id
    assert other.differences(RECIPE) == [
        "image_size: 98 here, 28 in the store",
        "preprocessing.resize: 112 here, 32 in the store",
    ]
    turned = replace(RECIPE, outputs={"avg": 4, "cls": 6})
    assert turned.id != RECIPE.id
    assert len(turned.differences(RECIPE)) == 1
    with pytest.raises(StoreError, match="colour"):
        Recipe.from_dict({**RECIPE.to_dict(), "colour": "red"})


def test_read_returns_what_was_written(folder):
    store = filled(folder / "database.zarr")
    reader = FeatureReader.open(store.path)
    assert (reader.rows, reader.outputs, reader.recipe.id) == (150, OUTPUTS, RECIPE.id)
    reader.require_complete()
    whole = np.concatenate(
        [
            np.concatenate([f[name] for name in OUTPUTS], 1)
            for f in (features(store.spec, c) for c in range(3))
        ]
    ).astype(np.float16)
    np.testing.assert_array_equal(reader.read(0, 150), whole)
    np.testing.assert_array_equal(reader.read(10, 20, ["avg"]), whole[10:20, 6:])
    np.testing.assert_array_equal(reader.read(60, 130, ["avg", "cls"]), np.roll(whole[60:130], 4, axis=1))
    assert reader.read(7, 7).shape == (0, 10)
    assert list(reader.blocks()) == [(0, 64), (64, 128), (128, 150)]
    assert list(reader.blocks(60, 70)) == [(60, 64), (64, 70)]
    assert reader.tensor(0, 3).shape == (3, 10)
    np.testing.assert_array_equal(reader.dask("cls").compute(), whole[:, :6])
    assert reader.valid.all()
    assert not any(check_chunk(store, chunk) for chunk in range(3))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_slice_is_read_correctly(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "slices.zarr"
    store = open_store(path) if path.exists() else filled(path)
    start = data.draw(st.integers(0, 150))
    stop = data.draw(st.integers(start, 150))
    read = FeatureReader(store).read(start, stop, ["cls"])
    expected = np.arange(start, stop)[:, None] / 8 + np.arange(6)
    np.testing.assert_array_equal(read, expected.astype(np.float16))


def test_invalid_slices_and_outputs_are_rejected(folder):
    reader = FeatureReader(filled(folder / "database.zarr"))
    for start, stop in ((-1, 4), (4, 3), (0, 151)):
        with pytest.raises(StoreError, match="not a slice of the store's 150 rows"):
            reader.read(start, stop)
    with pytest.raises(StoreError, match="holds cls, avg, not gem"):
        reader.read(0, 1, ["gem"])


def test_the_store_is_plain_zarr(folder):
    filled(folder / "database.zarr")
    group = zarr.open_group(storage_path(folder / "database.zarr").zarr_store(), mode="r")
    assert sorted(name for name, _ in group.members()) == ["avg", "cls", "ledger", "row_id"]
    assert group["cls"].metadata.zarr_format == 3
    assert group["cls"].chunks == (64, 6)
    last = storage_path(folder / "database.zarr/cls/c/2/0").read_values("<f2").reshape(64, 6)
    assert np.isnan(last[22:]).all()
    assert np.isfinite(last[:22]).all()


def test_dimensions_are_named_for_xarray(folder):
    filled(folder / "database.zarr")
    group = zarr.open_group(storage_path(folder / "database.zarr").zarr_store(), mode="r")
    names = {name: array.metadata.dimension_names for name, array in group.arrays()}
    assert names.pop("row_id") == ("row",)
    assert names == {name: ("row", f"{name}_component") for name in names}
    assert names


def test_checksums_cover_the_real_rows_and_find_damage(folder):
    store = filled(folder / "database.zarr")
    entry = store.ledger.entry(2)
    assert entry.rows == slice(128, 150)
    assert entry.crc32["avg"] == zlib.crc32(features(store.spec, 2)["avg"].astype("<f2").tobytes())
    file = store.path / "avg/c/1/0"
    damaged = bytearray(file.read_bytes())
    damaged[100] ^= 1
    file.write_bytes(damaged)
    assert [(fault.chunk, fault.output) for c in range(3) for fault in check_chunk(store, c)] == [(1, "avg")]


def test_bad_rows_are_nan_masked_and_listed(folder):
    spec = StoreSpec(150, OUTPUTS, "float16", 64)
    store = create_or_open(folder / "database.zarr", spec, RECIPE, ids(150))
    ChunkWriter(store).write(
        1, features(spec, 1), {70: "truncated", 65: "empty"}, keys={70: "b.jpg", 65: "a.jpg"}
    )
    reader = FeatureReader(store)
    assert [(bad.row, bad.key, bad.reason) for bad in store.ledger.bad_rows()] == [
        (65, "a.jpg", "empty"),
        (70, "b.jpg", "truncated"),
    ]
    assert np.flatnonzero(reader.valid).tolist() == [row for row in range(64, 128) if row not in (65, 70)]
    assert np.isnan(reader.read(70, 71)).all()
    assert np.isnan(reader.read(0, 64)).all()
    assert reader.missing_rows == 64 + 22
    with pytest.raises(StoreError, match=r"lacks 86 of 150 rows: run `pipeline extract --split database`"):
        reader.require_complete()
    with pytest.raises(StoreError, match=r"--shards 1,4`"):
        reader.require_complete(shards=5)


def test_a_value_outside_the_dtype_is_rejected(folder):
    spec = StoreSpec(10, OUTPUTS, "float16", 64)
    store = create_or_open(folder / "database.zarr", spec, RECIPE, ids(10))
    arrays = features(spec, 0)
    arrays["cls"][3, 2] = 1e6
    with pytest.raises(StoreError, match="row 3 of 'cls' is not finite as float16"):
        ChunkWriter(store).write(0, arrays)
    assert not store.ledger.done(0)
    ChunkWriter(store).write(0, arrays, {3: "too large for float16"})
    assert store.ledger.done(0)
    with pytest.raises(StoreError, match="need features"):
        ChunkWriter(store).write(0, {"avg": arrays["avg"]}, {3: "too large"})
    with pytest.raises(StoreError, match="bad row 11"):
        ChunkWriter(store).write(0, arrays, {11: "no"})


def test_another_recipe_is_rejected_with_the_differences(folder):
    path = folder / "database.zarr"
    store = filled(path)
    before = content(path)
    with pytest.raises(RecipeMismatch, match=r"image_size: 98 here, 28 in the store.*--replace"):
        create_or_open(path, store.spec, replace(RECIPE, image_size=98), ids(150))
    assert content(path) == before
    new = create_or_open(path, store.spec, replace(RECIPE, image_size=98), ids(150), replace=True)
    assert len(new.ledger.missing()) == 3


def test_a_store_of_other_rows_is_moved_aside_and_reusable(folder):
    path = folder / "database.zarr"
    store = filled(path)
    assert create_or_open(path, store.spec, RECIPE, ids(150)).identity == store.identity
    longer = StoreSpec(160, OUTPUTS, "float16", 64)
    new = create_or_open(path, longer, RECIPE, ids(160))
    assert store.replaced()
    assert len(new.ledger.missing()) == 3
    with pytest.raises(StoreError, match="was replaced while"):
        ChunkWriter(store).write(0, features(store.spec, 0))
    create_or_open(path, longer, RECIPE, ids(160, offset=5))
    assert [aside.path.name for aside in reusable(path, RECIPE)] == [
        "database.zarr.old2",
        "database.zarr.old",
    ]
    assert reusable(path, replace(RECIPE, image_size=98)) == []
    drop_reusable(path)
    assert [entry.name for entry in folder.glob("*")] == ["database.zarr"]


def test_stores_aside_are_reused_newest_first(tmp_path):
    path = tmp_path / "database.zarr"
    for rows in range(140, 152):
        filled(path, rows, chunks=[])
    names = ["database.zarr.old", *(f"database.zarr.old{number}" for number in range(2, 12))]
    assert [aside.path.name for aside in reusable(path, RECIPE)] == names[::-1]
    assert [aside.spec.rows for aside in reusable(path, RECIPE)] == list(range(150, 139, -1))


def test_a_store_replaced_during_a_write_gets_no_entry(tmp_path, monkeypatch):
    path = tmp_path / "database.zarr"
    store, write = filled(path, chunks=[]), LocalPath.write_atomic

    def write_and_replace(file, content):
        write(file, content)
        if file.parts[-4:-1] == ("avg", "c", "1"):  # the last array of the chunk
            filled(path, rows=160, chunks=[])

    monkeypatch.setattr(LocalPath, "write_atomic", write_and_replace)
    with pytest.raises(StoreError, match=r"was replaced while this run wrote to it"):
        ChunkWriter(store).write(1, features(store.spec, 1))
    monkeypatch.undo()
    assert open_store(path).spec.rows == 160
    assert open_store(path).ledger.listed() == []


def test_entries_past_the_last_chunk_are_not_listed(folder):
    store = filled(folder / "database.zarr")
    for name in ("000003", "000004"):
        (store.path / f"ledger/{name}.json").write_bytes((store.path / "ledger/000002.json").read_bytes())
    assert store.ledger.listed() == [0, 1, 2]
    assert store.ledger.valid_mask().all()


def test_no_store_and_unknown_format_give_different_errors(folder):
    with pytest.raises(StoreError, match="no feature store at"):
        open_store(folder / "database.zarr")
    zarr.create_group(storage_path(folder / "other.zarr").zarr_store())
    with pytest.raises(StoreError, match="is of format none"):
        open_store(folder / "other.zarr")


def test_a_damaged_ledger_entry_is_named(folder):
    store = filled(folder / "database.zarr")
    (store.path / "ledger/000001.json").write_bytes(b"{")
    with pytest.raises(StoreError, match=r"000001\.json is damaged"):
        store.ledger.entry(1)
    assert not store.ledger.valid_mask()[64:128].any()
    assert store.ledger.listed() == [0, 1, 2]
    store.ledger.reopen(1)
    assert store.ledger.missing().tolist() == [1]
    with pytest.raises(StoreError, match="chunk 1 is not finished"):
        store.ledger.entry(1)


def test_a_store_without_rows_is_complete(folder):
    spec = StoreSpec.for_rows(0, OUTPUTS, "float16")
    reader = FeatureReader(create_or_open(folder / "views.zarr", spec, RECIPE, ids(0)))
    reader.require_complete()
    assert reader.read(0, 0).shape == (0, 10)
    assert list(reader.blocks()) == []


def test_order_and_repetition_of_writes_do_not_matter(folder):
    filled(folder / "one.zarr")
    filled(folder / "two.zarr", chunks=[2, 0, 0, 1, 2])
    assert content(folder / "one.zarr") == content(folder / "two.zarr")


def test_timings_are_stored_beside_the_store(folder):
    store = filled(folder / "database.zarr")
    before = content(store.path)
    log_timing(store.path, {"chunk": 0, "read_s": 0.5})
    log_timing(store.path, {"chunk": 1, "read_s": 0.25})
    assert total_timings(store.path)["read_s"] == 0.75
    assert sorted(entry.name for entry in folder.glob("*")) == ["database.timings.jsonl", "database.zarr"]
    assert content(store.path) == before


def test_a_killed_writer_loses_only_its_current_chunk(tmp_path):
    program = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        import tests.cache.test_store as t
        import cache.writer
        store = t.filled(Path(sys.argv[1]), chunks=[0])
        (store.path / "cls/c/1").mkdir(parents=True)
        (store.path / "cls/c/1/0.deadbeef.partial").write_bytes(b"half")
        cache.writer.zlib.crc32 = lambda data: os.kill(os.getpid(), signal.SIGKILL)
        t.ChunkWriter(store).write(1, t.features(store.spec, 1))
        """
    )
    path = tmp_path / "killed.zarr"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=root, check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    store = open_store(path)
    assert store.ledger.done_chunks().tolist() == [0]
    for chunk in store.ledger.missing():
        ChunkWriter(store).write(int(chunk), features(store.spec, int(chunk)))
    filled(tmp_path / "undisturbed.zarr")
    assert content(path) == content(tmp_path / "undisturbed.zarr")


def test_the_ledger_digest_changes_with_features_and_bad_rows(folder):
    spec = StoreSpec(150, OUTPUTS, "float16", 64)
    ledger = create_or_open(folder / "database.zarr", spec, RECIPE, ids(150)).ledger
    digests = [ledger.digest()]
    crc32 = dict.fromkeys(OUTPUTS, 7)
    for sums, bad in (
        (crc32, ()),
        (crc32 | {next(iter(OUTPUTS)): 8}, ()),
        (crc32, (BadRow(70, "a", "torn"),)),
    ):
        ledger.mark(1, sums, bad)
        digests.append(ledger.digest())
    assert len(set(digests)) == 4
