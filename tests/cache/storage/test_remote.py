"""Stores on object storage: kills between requests, several processes, network errors."""

from __future__ import annotations

import pickle
import threading
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import fsspec
import numpy as np
import pytest

from cache.errors import StoreError, StoreInUse
from cache.integrity import check_chunk, torn
from cache.reader import FeatureReader
from cache.spec import StoreSpec
from cache.storage import folder_lock
from cache.storage.folder_lock import Holder, locked
from cache.storage.paths import storage_path
from cache.storage.remote import RemotePath
from cache.storage.shard_claims import claimed, claims_folder, claims_on
from cache.store import create_or_open, drop_reusable, open_store, reusable
from cache.writer import ChunkWriter
from tests.cache.test_faults import work
from tests.cache.test_store import OUTPUTS, RECIPE, content, features, filled, ids

OTHER = replace(RECIPE, image_size=98)
REQUESTS = ("pipe_file", "rm_file", "cp_file")


class Killed(BaseException):
    """Stands for SIGKILL: from then on no request of the process reaches the storage."""


@pytest.fixture
def objects():
    place = RemotePath(f"memory://{uuid4().hex}")
    yield place
    place.delete_store()


@pytest.fixture
def dying(monkeypatch):
    """Kill the process at its n-th request that changes something; others see a dead holder."""
    fs = fsspec.filesystem("memory", use_listings_cache=False)
    alive = Holder.this_process()
    monkeypatch.setattr(
        Holder, "this_process", classmethod(lambda cls: replace(alive, ticks=alive.ticks + 1))
    )

    def arm(patch, last):
        seen = 0

        def limited(request):
            def send(*arguments, **options):
                nonlocal seen
                seen += 1
                if seen > last:
                    raise Killed
                return request(*arguments, **options)

            return send

        for name in REQUESTS:
            patch.setattr(fs, name, limited(getattr(fs, name)))

    return arm


def grown(path):
    """A store of 150 rows, moved aside for one of 160, which is then completed."""
    spec = StoreSpec(160, OUTPUTS, "float16", 64)
    if not path.with_name("begun").exists():
        work(path)
        path.with_name("begun").write_bytes(b"")
    store = create_or_open(path, spec, RECIPE, ids(160))
    with claimed(path, {0: range(3)}):
        for chunk in store.ledger.missing():
            for old in reusable(path, RECIPE):
                assert FeatureReader(old).valid.all()
            ChunkWriter(store).write(int(chunk), features(spec, int(chunk)))
    drop_reusable(path)


def swapped(path):
    """Two recipes in turns: each finds its store as it left it."""
    spec = StoreSpec(150, OUTPUTS, "float16", 64)
    for recipe in (RECIPE, OTHER, RECIPE):
        store = create_or_open(path, spec, recipe, ids(150), keep=True)
        for chunk in store.ledger.missing():
            ChunkWriter(store).write(int(chunk), features(spec, int(chunk)))


@pytest.mark.parametrize(("story", "step"), [(work, 2), (grown, 7), (swapped, 11)])
def test_a_kill_between_requests_does_not_change_the_store(story, step, objects, dying, monkeypatch):
    story(objects / "whole" / "database.zarr")
    whole, kills, last = content(objects / "whole"), 0, 1
    whole = {name: data for name, data in whole.items() if name != "begun"}
    while True:
        place = objects / str(last)
        killed = False
        with monkeypatch.context() as patch:
            dying(patch, last)
            try:
                story(place / "database.zarr")
            except Killed:
                killed = True
        story(place / "database.zarr")
        left = {name: data for name, data in content(place).items() if name != "begun"}
        extra = {name for name in left if name not in whole}
        assert all(".zarr.old" in name for name in extra), f"leftovers after request {last}: {extra}"
        assert {name: left.get(name) for name in whole} == whole, f"other bytes after request {last}"
        store = open_store(place / "database.zarr")
        assert list(torn(store, range(3))) == []
        assert not any(check_chunk(store, chunk) for chunk in range(3))
        if not killed:
            break
        kills, last = kills + 1, last + step
    assert kills > 5


def test_a_storage_path_is_a_folder_or_an_address(tmp_path):
    assert storage_path("data/features", tmp_path) == tmp_path / "data/features"
    assert storage_path(Path("features")) == Path("features")
    assert storage_path("/mnt/features", tmp_path) == Path("/mnt/features")
    assert storage_path("file:///mnt/features", tmp_path) == Path("/mnt/features")
    place = storage_path("s3://bucket/features/", tmp_path) / "database.zarr"
    assert str(place) == "s3://bucket/features/database.zarr"
    assert storage_path(place) == place
    assert (place.name, place.stem) == ("database.zarr", "database")
    assert str(place.parent) == "s3://bucket/features"


def test_unreachable_storage_gives_a_clear_error(monkeypatch):
    with pytest.raises(StoreError, match=r"cannot be reached .*expected a folder, s3:// or gs://"):
        open_store(RemotePath("nowhere://bucket/database.zarr"))

    def absent(protocol, **_):
        raise ImportError("Install s3fs to access S3")

    with monkeypatch.context() as patch:
        patch.setattr("fsspec.filesystem", absent)
        with pytest.raises(StoreError, match=r"Install s3fs.*pip install 'placecache\[s3\]'"):
            open_store(RemotePath("s3://bucket/database.zarr"))


def test_a_network_error_is_reported_and_loses_nothing(objects, monkeypatch):
    store = filled(objects / "database.zarr", chunks=[0])

    def failing(*_, **__):
        raise TimeoutError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(store.path.fs, "pipe_file", failing)
        with pytest.raises(StoreError, match=r"cannot be reached or written .*no answer.*same command"):
            ChunkWriter(store).write(1, features(store.spec, 1))
    assert store.ledger.done_chunks().tolist() == [0]
    work(store.path)
    work(objects / "whole.zarr")
    assert content(store.path) == content(objects / "whole.zarr")


def test_an_entry_that_cannot_be_fetched_is_not_missing(objects, monkeypatch):
    store = filled(objects / "database.zarr")
    read = store.path.fs.cat_file

    def failing(path, *arguments, **options):
        if path.endswith("ledger/000001.json"):
            raise TimeoutError("no answer")
        return read(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(store.path.fs, "cat_file", failing)
        ledger = store.ledger
        looks = (
            ledger.done_chunks,
            ledger.valid_mask,
            lambda: list(torn(store, [1])),
            lambda: ledger.done(1),
        )
        for look in looks:
            with pytest.raises(StoreError, match=r"cannot be reached .*no answer"):
                look()
    (store.path / "ledger" / "000001.json").unlink()
    assert [entry.chunk for entry in store.ledger.entries(range(3))] == [0, 2]


def test_a_store_path_can_be_pickled(objects):
    store = filled(objects / "database.zarr")
    place = pickle.loads(pickle.dumps(store.path))
    assert place == store.path
    np.testing.assert_array_equal(FeatureReader.open(place).read(10, 140), FeatureReader(store).read(10, 140))


def test_disk_and_object_storage_hold_the_same_bytes(objects, tmp_path):
    filled(objects / "database.zarr")
    filled(tmp_path / "database.zarr")
    assert content(objects / "database.zarr") == content(tmp_path / "database.zarr")


def test_object_claims_reject_a_second_run_until_stale(objects, monkeypatch):
    path, shards = objects / "database.zarr", {0: range(4), 1: range(4, 8)}
    with claimed(path, shards):
        assert [claim.chunks for claim in claims_on(path)] == [range(4), range(4, 8)]
        with (
            pytest.raises(StoreInUse, match="shards 1 of database are being extracted by process"),
            claimed(path, {1: range(4, 6)}),
        ):
            pass
    assert objects.sizes() == {}
    elsewhere = replace(Holder.this_process(), host="node7", process=1, ticks=1)
    claim = claims_folder(path) / "000000-000003.json"
    claim.write_bytes(elsewhere.to_bytes())
    with pytest.raises(StoreInUse, match="process 1 on node7"), claimed(path, shards):
        pass
    later = RemotePath.modified
    monkeypatch.setattr(
        RemotePath, "modified", lambda self: later(self) - (folder_lock.STALE_S + 1) * (self == claim)
    )
    monkeypatch.setattr(folder_lock, "HEARTBEAT_S", 60.0)
    with claimed(path, {2: range(4, 5)}):
        assert [found.chunks for found in claims_on(path)] == [range(4, 5)]


def test_heartbeats_reach_objects(objects, monkeypatch):
    monkeypatch.setattr(folder_lock, "HEARTBEAT_S", 0.01)
    claim, beaten = objects / "database.claims" / "000000-000003.json", threading.Event()
    write = RemotePath.write_bytes

    def noted(self, data):
        write(self, data)
        if self == claim:
            beaten.set()

    monkeypatch.setattr(RemotePath, "write_bytes", noted)
    with claimed(objects / "database.zarr", {0: range(4)}):
        assert beaten.wait(10)
        assert Holder.parse(claim.read_bytes()) is not None


def test_only_one_thread_at_a_time_holds_the_lock(objects, monkeypatch):
    monkeypatch.setattr(folder_lock, "_RETRY_S", 0.001)
    inside, most = [], []

    def enter():
        for _ in range(5):
            with locked(objects):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 20
    assert max(most) == 1
    assert objects.sizes() == {}
    dead = replace(Holder.this_process(), ticks=1)
    (objects / ".lock").write_bytes(dead.to_bytes())
    with locked(objects):
        pass


def test_a_lock_is_held_when_the_first_answer_got_lost(objects, monkeypatch):
    fs, sent = objects.fs, []
    write = fs.pipe_file

    def sent_twice(*arguments, **options):
        write(*arguments, **options)
        if options.get("mode") == "create" and not sent:
            sent.append(1)
            write(*arguments, **options)

    monkeypatch.setattr(fs, "pipe_file", sent_twice)
    with locked(objects):
        assert sent
        assert not (objects / ".lock").create_new(b"another process")
    assert objects.sizes() == {}


def test_a_lock_released_during_the_request_is_requested_again(objects, monkeypatch):
    fs, write, rejected = objects.fs, objects.fs.pipe_file, []

    def rejecting(*arguments, **options):
        if options.get("mode") == "create" and len(rejected) < 2:
            rejected.append(1)
            raise OSError(22, "Precondition Failed")  # what S3 says; by now the lock is free
        write(*arguments, **options)

    monkeypatch.setattr(fs, "pipe_file", rejecting)
    with locked(objects):
        assert len(rejected) == 2
        assert list(objects.sizes()) == [".lock"]


def test_a_replaced_store_is_not_written_to(objects):
    old = filled(objects / "database.zarr")
    new = create_or_open(old.path, old.spec, OTHER, ids(150), replace=True)
    assert old.replaced()
    assert not new.replaced()
    with pytest.raises(StoreError, match="was replaced while this run wrote"):
        ChunkWriter(old).write(0, features(old.spec, 0))
