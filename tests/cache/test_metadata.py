"""Damaged metadata of stores: one error each, whose advice works, and no wrong value."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from cache.errors import StoreError
from cache.integrity import metadata_faults, repair_metadata
from cache.reader import FeatureReader
from cache.store import open_store
from tests.cache.test_store import content, filled

BAD_JSON = [b"", b"null", b"[]", b"[" * 100_000, b'{"a": 1', b"\xff\xfe", b'"text"']


@pytest.mark.parametrize("document", BAD_JSON)
def test_a_torn_root_zarr_json_advises_replace(folder, document):
    store = filled(folder / "database.zarr")
    (store.path / "zarr.json").write_bytes(document)
    with pytest.raises(StoreError, match="--replace"):
        open_store(store.path)


def test_a_missing_root_zarr_json_advises_replace(tmp_path):
    store = filled(tmp_path / "database.zarr")
    (store.path / "zarr.json").unlink()
    with pytest.raises(StoreError, match=r"zarr\.json is missing.*--replace"):
        open_store(store.path)


def changed(file, *path, value):
    document = json.loads(file.read_bytes())
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    file.write_bytes(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("recipe", "image_size"), 29),
        (("recipe", "outputs"), {"cls": 7, "avg": 4}),
        (("recipe_id",), "0" * 16),
        (("rows",), "150"),
        (("rows",), -1),
        (("chunk_rows",), 0),
        (("chunk_rows",), 2.5),
        (("recipe",), None),
    ],
)
def test_changed_values_of_a_store_are_noticed(folder, path, value):
    store = filled(folder / "database.zarr")
    changed(store.path / "zarr.json", "attributes", "placecache", *path, value=value)
    with pytest.raises(StoreError):
        open_store(store.path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("shape",), [150, 7]),
        (("data_type",), "float32"),
        (("fill_value",), 0.0),
        (("codecs", 0, "configuration", "endian"), "big"),
        (("chunk_key_encoding", "configuration", "separator"), "."),
        (("chunk_grid", "configuration", "chunk_shape"), [0, 6]),
        (("node_type",), "group"),
    ],
)
def test_changed_metadata_of_an_array_are_repaired(folder, path, value):
    store = filled(folder / "database.zarr")
    before = FeatureReader(store).read(0, 150)
    changed(store.path / "cls" / "zarr.json", *path, value=value)
    store = open_store(store.path)
    with pytest.raises(StoreError, match="run `pipeline extract --split database --repair`"):
        FeatureReader(store)
    assert [fault.name for fault in metadata_faults(store)] == ["cls"]
    assert repair_metadata(store) == ["cls"]
    np.testing.assert_array_equal(FeatureReader(open_store(store.path)).read(0, 150), before)


def test_missing_metadata_are_written_again(tmp_path):
    store = filled(tmp_path / "database.zarr")
    before = content(store.path)
    (store.path / "avg" / "zarr.json").unlink()
    (store.path / "ledger" / "zarr.json").write_bytes(b"{")
    assert {fault.name for fault in metadata_faults(store)} == {"avg", "ledger"}
    repair_metadata(open_store(store.path))
    assert content(store.path) == before
    assert metadata_faults(open_store(store.path)) == []


def test_missing_row_ids_are_not_taken_for_other_images(tmp_path):
    store = filled(tmp_path / "database.zarr")
    shutil.rmtree(store.path / "row_id" / "c")
    with pytest.raises(StoreError, match=r"row_id is damaged \(a chunk is missing\).*--replace"):
        open_store(store.path).row_ids()
    assert [fault.repairable for fault in metadata_faults(store)] == [False]


@pytest.mark.parametrize(
    "change",
    [
        {"crc32": {"cls": -1, "avg": 0}},
        {"crc32": {"cls": 1 << 40, "avg": 0}},
        {"crc32": {"cls": 1.5, "avg": 0}},
        {"bad": [{"row": 3, "key": "a", "reason": "b"}]},
        {"bad": [{"row": 71, "key": "a", "reason": "b"}, {"row": 70, "key": "a", "reason": "b"}]},
        {"bad": [{"row": 70, "key": None, "reason": "b"}]},
        {"bad": {"row": 70}},
        {"chunk": True},
        {"rows": [64.0, 128]},
        {"rows": None},
    ],
)
def test_wrong_values_in_an_entry_are_damage(folder, change):
    store = filled(folder / "database.zarr")
    path = store.path / "ledger/000001.json"
    entry = json.loads(path.read_bytes())
    del entry["checksum"]
    path.write_bytes(json.dumps(entry).encode())
    assert store.ledger.done(1)  # as earlier versions wrote it
    path.write_bytes(json.dumps({**entry, **change}).encode())
    assert not store.ledger.done(1)
    with pytest.raises(StoreError, match="run `pipeline extract`"):
        store.ledger.entry(1)


def test_an_entry_with_another_reason_is_damage(folder):
    store = filled(folder / "database.zarr")
    path = store.path / "ledger/000001.json"
    path.write_bytes(
        path.read_bytes().replace(b'"bad": []', b'"bad": [{"row": 70, "key": "", "reason": ""}]')
    )
    assert not store.ledger.done(1)


@pytest.mark.parametrize("document", BAD_JSON)
def test_a_torn_entry_is_no_traceback(folder, document):
    store = filled(folder / "database.zarr")
    (store.path / "ledger/000001.json").write_bytes(document)
    assert store.ledger.missing().tolist() == [1]
