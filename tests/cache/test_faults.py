"""Stores under faults: a kill at every file operation, torn files, flipped bits, a full disk."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from cache.errors import StoreError
from cache.integrity import check_chunk, repair, require_sound, torn
from cache.reader import FeatureReader
from cache.spec import StoreSpec
from cache.store import create_or_open, open_store
from cache.writer import ChunkWriter
from tests.cache.test_store import OUTPUTS, RECIPE, content, features, filled, ids

CHUNKS = range(3)
# For every file operation, forks a writer, kills it there, and forks another one that finishes the
# work. The parent never uses Zarr, whose threads would not survive the fork.
KILLS = textwrap.dedent(
    """
    import os, shutil, signal, sys
    from pathlib import Path
    import tests.cache.test_faults as t

    def forked(work):
        child = os.fork()
        if child == 0:
            work()
            os._exit(0)
        return os.waitpid(child, 0)[1]

    def killed_at(last, path):
        seen = 0
        def hook(event, _):
            nonlocal seen
            if event.startswith(("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "open")):
                seen += 1
                if seen == last:
                    os.kill(os.getpid(), signal.SIGKILL)
        t.begin(path)
        sys.addaudithook(hook)
        t.work(path)

    folder, step = Path(sys.argv[1]), int(sys.argv[2])
    assert forked(lambda: t.work(folder / "whole.zarr")) == 0
    whole, last, kills = t.content(folder / "whole.zarr"), 1, 0
    while True:
        place = folder / str(last)
        place.mkdir()
        path = place / "database.zarr"
        killed = forked(lambda: killed_at(last, path)) != 0
        assert forked(lambda: t.work(path)) == 0, f"not continued after file operation {last}"
        assert t.content(path) == whole, f"other bytes after a kill at file operation {last}"
        assert [entry.name for entry in place.iterdir()] == ["database.zarr"], f"leftovers after {last}"
        shutil.rmtree(place)
        if not killed:
            break
        last, kills = last + step, kills + 1
    print(kills)
    """
)


def begin(path):
    """Import everything now, so that the file operations of imports are not counted."""
    filled(path.with_name("warm.zarr"))
    import shutil

    shutil.rmtree(path.with_name("warm.zarr"))


def work(path):
    """Do what every run does: open or create, write missing chunks, compute a bad row of chunk 1 again."""
    spec = StoreSpec(150, OUTPUTS, "float16", 64)
    store = create_or_open(path, spec, RECIPE, ids(150))
    for chunk in CHUNKS:
        if not store.ledger.done(chunk):
            ChunkWriter(store).write(chunk, features(spec, chunk), {70: "no such file"} if chunk == 1 else {})
    if store.ledger.entry(1).bad:
        ChunkWriter(store).write(1, features(spec, 1))


def test_a_kill_at_any_file_operation_does_not_change_the_store(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", KILLS, str(tmp_path), "9"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


def cut(path, length):
    path.write_bytes(path.read_bytes()[:length])


TEARS = {
    "short chunk": (lambda store: cut(store / "avg/c/1/0", 100), "avg", "file has 100 of 512 bytes"),
    "empty chunk": (lambda store: cut(store / "cls/c/1/0", 0), "cls", "file has 0 of 768 bytes"),
    "lost chunk": (lambda store: (store / "cls/c/1/0").unlink(), "cls", "file is missing"),
    "short entry": (lambda store: cut(store / "ledger/000001.json", 30), "ledger", "entry is damaged"),
    "empty entry": (lambda store: cut(store / "ledger/000001.json", 0), "ledger", "entry is damaged"),
    "foreign entry": (
        lambda store: (
            cut(store / "ledger/000001.json", 0)
            or (store / "ledger/000001.json").write_bytes((store / "ledger/000000.json").read_bytes())
        ),
        "ledger",
        "entry is damaged",
    ),
}


@pytest.mark.parametrize("tear", TEARS)
def test_torn_files_are_found_by_length_and_written_again(folder, tear):
    path = folder / "database.zarr"
    filled(path)
    whole = content(path)
    harm, output, what = TEARS[tear]
    harm(path)
    store = open_store(path)
    found = list(torn(store, CHUNKS))
    assert [(fault.chunk, fault.output, fault.what) for fault in found] == [(1, output, what)]
    assert check_chunk(store, 1) == found
    assert repair(store, found) == [1]
    assert store.ledger.missing().tolist() == [1]
    assert list(torn(store, CHUNKS)) == []
    ChunkWriter(store).write(1, features(store.spec, 1))
    assert content(path) == whole


def test_a_flipped_bit_is_found_anywhere(folder):
    store = filled(folder / "database.zarr")
    for chunk, byte, what in (
        (0, 0, "bytes changed since they were written"),
        (1, 511, "bytes changed since they were written"),
        (2, 22 * 4 * 2 - 1, "bytes changed since they were written"),
        (2, 511, "bytes changed past the last row"),
    ):
        file = store.chunk_file("avg", chunk)
        sound = file.read_bytes()
        hurt = bytearray(sound)
        hurt[byte] ^= 0x40
        file.write_bytes(hurt)
        assert list(torn(store, CHUNKS)) == []
        found = [fault for chunk in CHUNKS for fault in check_chunk(store, chunk)]
        assert [(fault.chunk, fault.output, fault.what) for fault in found] == [(chunk, "avg", what)]
        with pytest.raises(StoreError, match=r"is damaged .*--split database --repair"):
            require_sound(store, chunk)
        file.write_bytes(sound)
    assert [fault for chunk in CHUNKS for fault in check_chunk(store, chunk)] == []


def test_an_unlisted_nan_is_found_despite_a_valid_checksum(folder):
    store = filled(folder / "database.zarr", chunks=[0, 2])
    ChunkWriter(store).write(1, features(store.spec, 1), {70: "empty file", 71: "empty file"})
    path = store.path / "ledger/000001.json"
    entry = json.loads(path.read_bytes())
    entry["bad"] = entry["bad"][:1]
    del entry["checksum"]  # as earlier versions wrote it
    path.write_bytes(json.dumps(entry).encode())
    assert [(fault.output, fault.what) for fault in check_chunk(store, 1)] == [
        ("cls", "row 71 is not finite and not listed as bad"),
        ("avg", "row 71 is not finite and not listed as bad"),
    ]


def test_a_full_disk_gives_a_clear_error_and_loses_nothing(tmp_path, monkeypatch):
    store = filled(tmp_path / "database.zarr", chunks=[0])

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(StoreError, match=r"chunk 1 of .* cannot be written: No space left.*same command"):
            ChunkWriter(store).write(1, features(store.spec, 1))
        with pytest.raises(StoreError, match=r"cannot be created: No space left on device"):
            create_or_open(tmp_path / "views.zarr", store.spec, RECIPE, ids(150))
    assert [entry.name for entry in tmp_path.iterdir()] == ["database.zarr"]
    assert store.ledger.done_chunks().tolist() == [0]
    work(store.path)
    work(tmp_path / "whole.zarr")
    assert content(store.path) == content(tmp_path / "whole.zarr")


def test_a_full_disk_leaves_no_partial_ledger_entry(tmp_path, monkeypatch):
    store = filled(tmp_path / "database.zarr", chunks=[0])

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left on device"):
            store.ledger.mark(1, {"cls": 0, "avg": 0}, ())
    assert sorted(path.name for path in store.ledger.folder.iterdir()) == ["000000.json", "zarr.json"]


def test_a_torn_zarr_json_gives_a_clear_error(folder):
    store = filled(folder / "database.zarr")
    for harm in (b"", b'{"zarr_format": 3'):
        (store.path / "zarr.json").write_bytes(harm)
        with pytest.raises(StoreError, match=r"zarr\.json is damaged .*--replace"):
            open_store(store.path)


def test_leftovers_of_kills_are_deleted(tmp_path):
    path = tmp_path / "database.zarr"
    filled(path)
    for name in (".database.zarr.0a.new", ".database.zarr.0b.drop"):
        (tmp_path / name / "avg").mkdir(parents=True)
    create_or_open(path, StoreSpec(150, OUTPUTS, "float16", 64), RECIPE, ids(150))
    assert [entry.name for entry in tmp_path.iterdir()] == ["database.zarr"]
    assert np.isfinite(FeatureReader.open(path).read(0, 150)).all()
