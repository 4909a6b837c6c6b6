"""Extraction under faults: killed, interrupted, out of disk space, run twice at once, and repaired."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import struct
import subprocess
import sys
import textwrap
import time
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from cache.errors import StoreError, StoreInUse
from cache.integrity import check_chunk
from cache.storage.paths import LocalPath
from cache.store import open_store
from cache.timings import total_timings
from pipeline.project.init import set_params, template
from pipeline.runners.extract import sigterm_as_ctrl_c
from stages.errors import InputError
from stages.index.manifest import Manifest
from tests.support.tiny_photos import CONFIG, content, draw, listed, run

ROWS = 260
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for number in range(ROWS):
        draw(root / f"{number:04d}.jpg", number)
    return root


@pytest.fixture(scope="module")
def manifest(photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "database.parquet"
    return listed(path, photos, [f"{number:04d}.jpg" for number in range(ROWS)])


@pytest.fixture(scope="module")
def uninterrupted(manifest, tmp_path_factory):
    store = tmp_path_factory.mktemp("uninterrupted") / "database.zarr"
    run(manifest, store)
    return content(store)


# One process imports everything; each run is a fork of it, killed at a random moment.
KILLS = textwrap.dedent(
    """
    import os, random, signal, sys, time
    from pathlib import Path
    import tests.stages.extract.test_faults as t

    manifest, store = t.Manifest.open(Path(sys.argv[1])), Path(sys.argv[2])
    generator, kills = random.Random(int(sys.argv[3])), 0
    done = seen = 0
    while not done:
        child = os.fork()
        if child == 0:
            t.run(manifest, store)
            os._exit(0)
        # From before the store exists to the last chunks: later runs are given more time.
        time.sleep(generator.uniform(0.05, 0.2 + 0.1 * kills))
        os.kill(child, signal.SIGKILL)
        done = os.waitpid(child, 0)[1] == 0
        entries = len(list(store.glob("ledger/0*.json")))
        assert entries >= seen, "a finished chunk was lost"
        seen, kills = entries, kills + (not done)
    print(kills)
    """
)


def test_kills_at_random_moments_end_in_the_same_bytes(manifest, uninterrupted, tmp_path):
    store = tmp_path / "database.zarr"
    command = [sys.executable, "-W", "ignore", "-c", KILLS, str(manifest.path), str(store), "7"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    assert content(store) == uninterrupted
    assert sorted(path.name for path in tmp_path.iterdir()) == ["database.timings.jsonl", "database.zarr"]


@pytest.fixture
def project(tmp_path, manifest):
    """A project whose database manifest lists the photos."""
    folder = tmp_path / "project"
    (folder / "data" / "index").mkdir(parents=True)
    settings = {
        "extract.backbone": "efficientnet_lite0",
        "extract.image_size": 32,
        "extract.outputs": ["avg", "gem"],
        "extract.shards": 2,
        "extract.batch_size": 20,
        "extract.threads": 1,
    }
    (folder / "params.yaml").write_text(template("params.yaml").read_text())
    set_params(folder / "params.yaml", settings)
    keys = manifest.keys(0, ROWS)
    listed(folder / "data" / "index" / "database.parquet", manifest.root, keys)
    return folder


def test_sigterm_is_handled_like_ctrl_c():
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), sigterm_as_ctrl_c():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == handler


# Once a chunk is written, the backbone waits: the run cannot finish before the signal arrives.
WAITING = textwrap.dedent(
    """
    import signal, sys, time
    from pathlib import Path
    from pipeline.cli import main
    from stages.models.backbones.backbone import Backbone

    # A shell that starts the tests in the background has its children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ledger, forward = Path(sys.argv.pop(1)), Backbone.forward

    def waiting(self, pixels):
        if any(ledger.glob("0*.json")):
            time.sleep(120)
        return forward(self, pixels)

    Backbone.forward = waiting
    main()
    """
)


def test_ctrl_c_says_how_to_continue_and_frees_the_claims(project, uninterrupted):
    store = project / "data/features/efficientnet_lite0-32/database.zarr"
    program = [sys.executable, "-c", WAITING, str(store / "ledger")]
    command = [*program, "--project", str(project), "extract", "--split", "database"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        while not list(store.glob("ledger/0*.json")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        message = process.stderr.read().decode()
    assert process.returncode == 130
    assert message.strip() == "error: interrupted: run the same command again to continue"
    opened = open_store(store)
    assert 0 < len(opened.ledger.missing()) < opened.spec.chunks
    assert sorted(path.name for path in store.parent.iterdir()) == ["database.timings.jsonl", "database.zarr"]
    assert list(store.rglob("*.partial")) == []
    run(Manifest.open(project / "data/index/database.parquet"), store)
    assert content(store) == uninterrupted


def test_a_run_continues_after_a_full_disk(manifest, uninterrupted, tmp_path, monkeypatch):
    store, written = tmp_path / "database.zarr", []
    write_atomic = LocalPath.write_atomic

    def filling_up(path, content):
        if path.suffix != ".json":
            if len(written) == 4:  # two files for each of two chunks
                raise OSError(errno.ENOSPC, "No space left on device")
            written.append(path)
        write_atomic(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(LocalPath, "write_atomic", filling_up)
        with pytest.raises(StoreError, match=r"chunk 2 of .* No space left on device.*same command"):
            run(manifest, store)
    result = run(manifest, store)
    assert (result.done, result.computed) == (128, ROWS - 128)
    assert content(store) == uninterrupted


def test_torn_files_are_redone_without_repair(manifest, uninterrupted, tmp_path):
    store = tmp_path / "database.zarr"
    run(manifest, store)
    (store / "gem/c/1/0").write_bytes(b"")
    (store / "ledger/000003.json").write_bytes(b'{"chunk": 3, "ro')
    result = run(manifest, store)
    assert (result.done, result.computed) == (ROWS - 128, 128)
    assert ("damaged chunks done again", "1,3 (file has 0 of 163,840 bytes)") in result.facts()
    assert content(store) == uninterrupted


def test_repair_redoes_only_the_damaged_chunks(manifest, uninterrupted, tmp_path):
    store = tmp_path / "database.zarr"
    run(manifest, store)
    for chunk in (0, 4):
        file = store / f"avg/c/{chunk}/0"
        damaged = bytearray(file.read_bytes())
        damaged[1000] ^= 1
        file.write_bytes(damaged)
    assert run(manifest, store).computed == 0
    assert run(manifest, store, shards=[1], repair=True).computed == ROWS - 256
    result = run(manifest, store, repair=True)
    assert (result.computed, [fault.chunk for fault in result.damaged]) == (64, [0])
    assert content(store) == uninterrupted
    assert run(manifest, store, repair=True).computed == 0


def test_retrying_bad_rows_does_not_hide_damage(photos, tmp_path):
    keys = ["missing.jpg", *(f"{number:04d}.jpg" for number in range(80))]
    manifest = listed(tmp_path / "database.parquet", photos, keys)
    store = tmp_path / "database.zarr"
    run(manifest, store)
    file = store / "avg/c/0/0"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match="extract --split database --repair"):
        run(manifest, store)
    assert run(manifest, store, repair=True).computed == 63
    assert [check_chunk(open_store(store), chunk) for chunk in range(2)] == [[], []]


def test_a_second_run_on_the_same_shards_is_rejected(manifest, tmp_path):
    store, rejected = tmp_path / "database.zarr", []

    def meanwhile(function, orders):
        with pytest.raises(StoreInUse, match=rf"shards 0 of database .* process {os.getpid()} on") as caught:
            run(manifest, store)
        rejected.append(caught.value)
        yield from (function(order) for order in orders)

    assert run(manifest, store, shards=[0], mapper=meanwhile).computed == 128
    assert len(rejected) == 1
    assert run(manifest, store).computed == ROWS - 128


def test_a_reassigned_order_is_not_done_twice(manifest, uninterrupted, tmp_path, monkeypatch):
    """The first worker is lost after the first chunk of its shard."""
    store = tmp_path / "database.zarr"

    def twice(function, orders):
        for order in orders:
            first = min(order.todo)
            function(replace(order, todo={first: order.todo[first]}))
            yield function(pickle.loads(pickle.dumps(order)))

    result = run(manifest, store, mapper=twice)
    assert (result.computed, result.done, result.bad) == (ROWS, 0, ())
    assert total_timings(store)["images"] == ROWS
    assert content(store) == uninterrupted


def bomb(path):
    """Write a PNG of a few bytes whose header claims 900 million pixels."""

    def block(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    blocks = block(b"IHDR", header) + block(b"IDAT", zlib.compress(b"\0" * 1000)) + block(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + blocks)


def test_decompression_bombs_are_bad_images(tmp_path):
    root = tmp_path / "photos"
    for number in range(20):
        draw(root / f"{number:04d}.jpg", number)
    bomb(root / "bomb.jpg")
    manifest = listed(tmp_path / "database.parquet", root, [p.name for p in sorted(root.iterdir())])
    with pytest.raises(InputError, match=r"bomb\.jpg: more pixels than .*fraction 0\.01.*status --bad"):
        run(manifest, tmp_path / "database.zarr", replace(CONFIG, max_bad_fraction=0.01))
    result = run(manifest, tmp_path / "database.zarr")
    assert [bad.key for bad in result.bad] == ["bomb.jpg"]


def test_the_limit_of_bad_images_counts_all_shards(tmp_path):
    """Each shard alone stays below the limit."""
    (tmp_path / "photos").mkdir()
    manifest = listed(tmp_path / "database.parquet", tmp_path / "photos", [f"{n}.jpg" for n in range(256)])
    started = []

    def noted(function, orders):
        for order in orders:
            started.append(order.shard)
            yield function(replace(order, bad_limit=64))

    config = replace(CONFIG, max_bad_fraction=0.3, shards=4)
    with pytest.raises(InputError, match="128 images or more of the database are bad"):
        run(manifest, tmp_path / "database.zarr", config, mapper=noted)
    assert started == [0, 1]


def test_threads_are_set_for_the_shard_and_restored(manifest, tmp_path, monkeypatch):
    import torch

    from stages.models.backbones.backbone import Backbone

    seen, forward = set(), Backbone.forward

    def noted(self, pixels):
        seen.add(torch.get_num_threads())
        return forward(self, pixels)

    monkeypatch.setattr(Backbone, "forward", noted)
    before = torch.get_num_threads()
    run(manifest, tmp_path / "database.zarr", replace(CONFIG, threads=before + 1), shards=[0])
    assert (seen, torch.get_num_threads()) == ({before + 1}, before)
