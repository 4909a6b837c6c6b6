"""Ten thousand damaged forms of each metadata file: a StoreError or the right values, nothing else."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import numpy as np

from cache.errors import StoreError
from cache.ledger import Entry
from cache.reader import FeatureReader
from cache.store import open_store
from cache.writer import ChunkWriter
from tests.cache.test_store import features, filled
from tests.support.fuzz import ROUNDS, damaged


def test_damaged_ledger_entries(tmp_path):
    store = filled(tmp_path / "database.zarr")
    ChunkWriter(store).write(1, features(store.spec, 1), {70: "empty file"}, keys={70: "a/b.jpg"})
    entry, read = store.ledger.entry(1), 0
    for content in damaged((store.path / "ledger/000001.json").read_bytes(), seed=1):
        with contextlib.suppress(StoreError):
            assert store.ledger._parse(1, content) == entry
            read += 1
    assert 0 < read < ROUNDS / 2
    assert isinstance(entry, Entry)


def test_damaged_zarr_json_of_a_store(tmp_path):
    store = filled(tmp_path / "database.zarr")
    file, opened = store.path / "zarr.json", 0
    right = json.loads(file.read_bytes())
    for content in damaged(file.read_bytes(), seed=2):
        file.write_bytes(content)
        with contextlib.suppress(StoreError):
            again = open_store(store.path)
            if json.loads(content) != right:
                again = FeatureReader(again).store  # the arrays say their shapes too
            assert again.spec == store.spec
            assert replace(again.recipe, weights="") == replace(store.recipe, weights="")  # a text for people
            opened += 1
    assert 0 < opened < ROUNDS


def test_damaged_zarr_json_of_an_array(tmp_path):
    store = filled(tmp_path / "database.zarr", chunks=[0, 2])
    file, opened = store.path / "cls" / "zarr.json", 0
    original, right = file.read_bytes(), FeatureReader(store).read(0, 150)
    for content in damaged(original, seed=3):
        file.write_bytes(content)
        if store.array_fault("cls"):
            continue
        opened += 1
        if json.loads(content) == json.loads(original):  # other spaces
            continue
        with contextlib.suppress(StoreError):
            np.testing.assert_array_equal(FeatureReader(open_store(store.path)).read(0, 150), right)
    assert 0 < opened < ROUNDS
