"""Direct reads and writes of chunk files give the same as Zarr."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.reader import FeatureReader
from cache.recipe import Recipe
from cache.row_identity import RowIdentities, row_ids
from cache.spec import StoreSpec
from cache.store import create_or_open, open_store
from cache.writer import ChunkWriter

OUTPUTS = {"cls": 6, "avg": 4}
ROWS = 150


def store_at(path, dtype="float16"):
    """A store of three chunks, the second not extracted."""
    spec = StoreSpec(ROWS, OUTPUTS, dtype, 64)
    recipe = Recipe("tiny", "random", "ab" * 32, 28, {}, OUTPUTS, dtype, "float32")
    store = create_or_open(path, spec, recipe, RowIdentities.of(row_ids(map(str, range(ROWS)))))
    for chunk in (0, 2):
        rows = spec.chunk_slice(chunk)
        numbers = np.arange(rows.start, rows.stop)[:, None]
        ChunkWriter(store).write(
            chunk, {name: numbers / 8 + np.arange(length) for name, length in OUTPUTS.items()}
        )
    return store


@pytest.fixture(scope="module", params=["float16", "float32"])
def readers(request, tmp_path_factory):
    """The same store read directly, and through Zarr."""
    store = store_at(tmp_path_factory.mktemp("direct") / "database.zarr", request.param)
    direct, through_zarr = FeatureReader(store), FeatureReader(store)
    through_zarr._plain = frozenset()
    return direct, through_zarr


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_direct_reads_equal_zarr_reads(readers, data):
    start = data.draw(st.integers(0, ROWS))
    stop = data.draw(st.integers(start, ROWS))
    outputs = data.draw(st.sampled_from([None, ["cls"], ["avg"], ["avg", "cls"]]))
    direct, through_zarr = (reader.read(start, stop, outputs) for reader in readers)
    assert direct.dtype == through_zarr.dtype
    np.testing.assert_array_equal(direct, through_zarr)
    assert np.isnan(direct[max(64 - start, 0) : max(128 - start, 0)]).all()


def test_chunks_are_read_without_zarr(readers):
    direct = FeatureReader(readers[0].store)
    assert direct._plain == {"cls", "avg"}
    direct._arrays = {}
    assert direct.read(0, 64, ["cls"]).shape == (64, 6)
    assert direct.read(130, ROWS).shape == (20, 10)


@pytest.mark.parametrize("how", [{"compressors": zarr.codecs.ZstdCodec()}, {"shards": (128, 6)}])
def test_compressed_and_sharded_arrays_are_read_through_zarr(tmp_path, how):
    store = store_at(tmp_path / "database.zarr")
    values = np.nan_to_num(FeatureReader(store).read(0, ROWS, ["cls"]))
    del store.group["cls"]
    array = store.group.create_array("cls", shape=values.shape, dtype="float16", chunks=(64, 6), **how)
    array[:] = values
    reader = FeatureReader(open_store(store.path))
    assert reader._plain == {"avg"}
    np.testing.assert_array_equal(reader.read(0, ROWS, ["cls"]), values)


def test_chunk_files_are_those_that_zarr_writes(tmp_path, monkeypatch):
    store_at(tmp_path / "direct.zarr")
    monkeypatch.setattr("cache.store._is_plain", lambda array: False)
    store_at(tmp_path / "zarr.zarr")
    direct, through_zarr = (
        {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}
        for root in (tmp_path / "direct.zarr", tmp_path / "zarr.zarr")
    )
    assert "cls/c/2/0" in direct
    assert direct == through_zarr


def test_a_short_file_is_not_read_as_features(tmp_path):
    store = store_at(tmp_path / "database.zarr")
    file = store.chunk_file("cls", 0)
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(ValueError, match=r"reshape|size"):
        FeatureReader(store).read(0, 64, ["cls"])
