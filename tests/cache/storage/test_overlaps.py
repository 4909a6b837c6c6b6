"""Overlaps of claims, to the single chunk, and two runs that start at the same time."""

from __future__ import annotations

import pytest

from cache.errors import StoreInUse
from cache.storage.paths import LocalPath
from cache.storage.shard_claims import claimed, claims_folder, claims_on
from tests.cache.storage.test_shard_claims import SHARDS, forged


@pytest.mark.parametrize("name", ["000004-000007.json", "000009-000009.json"])
def test_neighbouring_chunks_do_not_overlap(tmp_path, name):
    store = tmp_path / "database.zarr"
    forged(store, name, host="node7")
    with claimed(store, {0: range(4), 2: range(8, 9)}):
        assert len(claims_on(store)) == 3


@pytest.mark.parametrize("name", ["000003-000007.json", "000008-000008.json", "000000-000020.json"])
def test_one_common_chunk_is_an_overlap(tmp_path, name):
    store = tmp_path / "database.zarr"
    forged(store, name, host="node7")
    with pytest.raises(StoreInUse, match="node7"), claimed(store, {0: range(4), 2: range(8, 9)}):
        pass


def test_a_run_that_started_at_the_same_time_is_seen(tmp_path, monkeypatch):
    """Without a lock, the other run's claim may appear between the look and the own claim."""
    store, create = tmp_path / "database.zarr", LocalPath.create_new

    def create_after_the_other(path, content):
        if path.suffix == ".json":
            forged(store, "000002-000005.json", host="node7")
        return create(path, content)

    monkeypatch.setattr(LocalPath, "create_new", create_after_the_other)
    with pytest.raises(StoreInUse, match=r"shards 0-1 of database .* on node7"), claimed(store, SHARDS):
        pass
    assert [path.name for path in claims_folder(store).iterdir()] == ["000002-000005.json"]
