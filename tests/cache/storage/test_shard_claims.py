"""Claims: who writes what, told to those who want the same; the dead hold nothing."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cache.spec import StoreSpec
from cache.storage import folder_lock as holder
from cache.storage.folder_lock import Holder
from cache.storage.shard_claims import StoreInUse, claimed, claims_folder, claims_on, require_unclaimed
from cache.store import create_or_open
from tests.cache.test_store import OUTPUTS, RECIPE, filled, ids

SHARDS = {0: range(4), 1: range(4, 8), 2: range(8, 8)}
HOLDING = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from cache.storage.shard_claims import claimed
    with claimed(Path(sys.argv[1]), {0: range(0, 4)}):
        print("held", flush=True)
        time.sleep(60)
    """
)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "database.zarr"


@pytest.fixture
def rival(store):
    """Another process that holds chunks 0 to 3."""
    program = [sys.executable, "-c", HOLDING, str(store)]
    with subprocess.Popen(program, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def forged(store, name="000000-000003.json", age_s=0.0, **fields):
    """A claim as another process would have left it."""
    path = claims_folder(store) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(asdict(replace(Holder.this_process(), **fields))))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_claims_lie_beside_the_store_and_go_with_the_run(store):
    with claimed(store, SHARDS):
        assert sorted(path.name for path in claims_folder(store).iterdir()) == [
            "000000-000003.json",
            "000004-000007.json",
        ]
        (claim, _) = claims_on(store)
        assert (claim.chunks, claim.holder.process) == (range(4), os.getpid())
    assert list(store.parent.iterdir()) == []


def test_the_second_run_is_told_who_holds_the_shards_since_when(store, rival):
    with (
        pytest.raises(StoreInUse, match=rf"shards 0 of database .* process {rival.pid} on .*, since 20\d\d-"),
        claimed(store, SHARDS),
    ):
        pass
    assert len(list(claims_folder(store).iterdir())) == 1
    with claimed(store, {1: range(4, 8)}):
        assert len(claims_on(store)) == 2


def test_shards_cut_otherwise_are_seen_to_overlap(store, rival):
    with (
        pytest.raises(StoreInUse, match="shards 1-2 of database"),
        claimed(store, {1: range(2, 3), 2: range(3, 9), 3: range(9, 10)}),
    ):
        pass


def test_a_killed_holder_holds_nothing(store, rival):
    os.kill(rival.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while claims_on(store) and time.monotonic() < deadline:
        time.sleep(0.01)  # not yet waited for: the dead but unburied count as dead
    with claimed(store, SHARDS):
        assert {claim.holder.process for claim in claims_on(store)} == {os.getpid()}


def test_a_process_number_used_again_or_a_reboot_holds_nothing(store):
    forged(store, ticks=Holder.this_process().ticks + 1)
    assert claims_on(store) == []
    forged(store, boot="another boot")
    assert claims_on(store) == []
    with claimed(store, SHARDS):
        pass


def test_other_hosts_and_containers_live_as_long_as_their_hearts_beat(store):
    for elsewhere in ({"host": "node7"}, {"namespace": "pid:[1]"}):
        forged(store, age_s=holder.STALE_S - 30, process=1, ticks=1, **elsewhere)
        with pytest.raises(StoreInUse, match="wait for that run"), claimed(store, SHARDS):
            pass
        forged(store, age_s=holder.STALE_S + 30, process=1, ticks=1, **elsewhere)
        with claimed(store, SHARDS):
            assert len(claims_on(store)) == 2


def test_a_claim_not_yet_written_counts(store):
    path = forged(store)
    path.write_text("")
    with pytest.raises(StoreInUse, match="a run that is just starting"), claimed(store, SHARDS):
        pass
    os.utime(path, (0, 0))
    with claimed(store, SHARDS):
        pass


def test_hearts_beat(store, monkeypatch):
    monkeypatch.setattr(holder, "HEARTBEAT_S", 0.02)
    with claimed(store, SHARDS):
        path = claims_folder(store) / "000000-000003.json"
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0


def test_an_error_in_the_run_frees_its_claims(store):
    with pytest.raises(KeyboardInterrupt), claimed(store, SHARDS):
        raise KeyboardInterrupt
    assert list(store.parent.iterdir()) == []


def test_a_store_in_use_is_not_replaced_or_moved_aside(store, rival):
    filled(store)
    spec = StoreSpec(150, OUTPUTS, "float16", 64)
    with pytest.raises(StoreInUse, match=f"being written by process {rival.pid}"):
        create_or_open(store, spec, RECIPE, ids(150), replace=True)
    with pytest.raises(StoreInUse, match="stop it"):
        create_or_open(store, replace(spec, rows=160), RECIPE, ids(160))
    assert create_or_open(store, spec, RECIPE, ids(150)).spec == spec
    rival.kill()
    rival.wait()
    require_unclaimed(store)
    create_or_open(store, spec, RECIPE, ids(150), replace=True)


def test_a_full_disk_leaves_no_claim_of_nobody(store, monkeypatch):
    opened = Path.open

    def full(self, mode="r", *arguments, **options):
        file = opened(self, mode, *arguments, **options)
        if mode == "xb" and self.suffix == ".json":
            file.write = lambda content: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left"))
        return file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(OSError, match="No space left"), claimed(store, {0: range(4)}):
            pass
    with claimed(store, {0: range(4)}):
        pass
