"""Claims: a second run learns who writes the chunks; claims of dead processes are void."""

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

from cache.errors import StoreInUse
from cache.spec import StoreSpec
from cache.storage import folder_lock
from cache.storage.folder_lock import Holder, held
from cache.storage.shard_claims import claimed, claims_folder, claims_on, require_unclaimed
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
    """Write a claim as another process would."""
    path = claims_folder(store) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(asdict(replace(Holder.this_process(), **fields))))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_claims_are_beside_the_store_and_end_with_the_run(store):
    with claimed(store, SHARDS):
        assert sorted(path.name for path in claims_folder(store).iterdir()) == [
            "000000-000003.json",
            "000004-000007.json",
        ]
        (claim, _) = claims_on(store)
        assert (claim.chunks, claim.holder.process) == (range(4), os.getpid())
    assert list(store.parent.iterdir()) == []


def test_the_second_run_learns_who_holds_the_shards_and_when(store, rival):
    with (
        pytest.raises(StoreInUse, match=rf"shards 0 of database .* process {rival.pid} on .*, since 20\d\d-"),
        claimed(store, SHARDS),
    ):
        pass
    assert len(list(claims_folder(store).iterdir())) == 1
    with claimed(store, {1: range(4, 8)}):
        assert len(claims_on(store)) == 2


def test_overlap_with_other_shard_counts_is_found(store, rival):
    with (
        pytest.raises(StoreInUse, match="shards 1-2 of database"),
        claimed(store, {1: range(2, 3), 2: range(3, 9), 3: range(9, 10)}),
    ):
        pass


def test_claims_of_a_killed_process_are_void(store, rival):
    os.kill(rival.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while claims_on(store) and time.monotonic() < deadline:
        time.sleep(0.01)  # nobody has waited for the process yet: a zombie counts as dead
    with claimed(store, SHARDS):
        assert {claim.holder.process for claim in claims_on(store)} == {os.getpid()}


def test_start_times_are_the_ticks_of_the_kernel():
    for process in (os.getpid(), 1):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        assert folder_lock._start_ticks(process) == int(fields[19])


def test_a_reused_process_id_or_a_reboot_voids_a_claim(store):
    forged(store, ticks=Holder.this_process().ticks + 1)
    assert claims_on(store) == []
    forged(store, boot="another boot")
    assert claims_on(store) == []
    with claimed(store, SHARDS):
        pass


def test_other_hosts_and_containers_hold_claims_until_stale(store):
    for elsewhere in ({"host": "node7"}, {"namespace": "pid:[1]"}):
        forged(store, age_s=folder_lock.STALE_S - 30, process=1, ticks=1, **elsewhere)
        with pytest.raises(StoreInUse, match="wait for that run"), claimed(store, SHARDS):
            pass
        forged(store, age_s=folder_lock.STALE_S + 30, process=1, ticks=1, **elsewhere)
        with claimed(store, SHARDS):
            assert len(claims_on(store)) == 2


def test_an_empty_claim_is_void_at_once(store):
    forged(store).write_text("")
    assert claims_on(store) == []
    with claimed(store, SHARDS):
        assert len(claims_on(store)) == 2


def test_a_claim_of_an_unknown_form_counts_until_stale(store):
    path = forged(store)
    path.write_text('{"machine": "of a later version"}')
    with pytest.raises(StoreInUse, match="an unknown process"), claimed(store, SHARDS):
        pass
    os.utime(path, (0, 0))
    with claimed(store, SHARDS):
        pass


def test_a_kill_while_claiming_leaves_no_empty_claim(store):
    script = """
import os, signal, sys
from pathlib import Path
from cache.storage.shard_claims import claimed
link = os.link
os.link = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
with claimed(Path(sys.argv[1]), {0: range(4)}):
    pass
"""
    killed = subprocess.run([sys.executable, "-c", script, str(store)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert claims_on(store) == []
    with claimed(store, SHARDS):
        pass
    assert not claims_folder(store).exists()


def test_claims_need_no_hard_links(store, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with claimed(store, {0: range(4)}), pytest.raises(StoreInUse), claimed(store, {0: range(4)}):
        pass
    assert not claims_folder(store).exists()


def test_nothing_to_claim_writes_nothing(store):
    with claimed(store / "absent" / "database.zarr", {0: range(0)}):
        assert not (store / "absent").exists()


def test_a_second_holder_of_a_lock_file_learns_of_the_first(tmp_path):
    lock = tmp_path / ".index.lock"
    with held(lock, "`pipeline index`"):
        message = rf"`pipeline index` is already running \(process {os.getpid()}"
        with pytest.raises(StoreInUse, match=message), held(lock, "`pipeline index`"):
            pass
        assert lock.exists()
    assert not lock.exists()
    lock.write_text(json.dumps(asdict(replace(Holder.this_process(), process=1 << 22, ticks=1))))
    with held(lock, "`pipeline index`"):  # its process is dead
        pass
    lock.touch()
    with held(lock, "`pipeline index`"):
        pass


def test_heartbeats_touch_claims(store, monkeypatch):
    monkeypatch.setattr(folder_lock, "HEARTBEAT_S", 0.02)
    with claimed(store, SHARDS):
        path = claims_folder(store) / "000000-000003.json"
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0


def test_an_error_releases_claims(store):
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


def test_a_full_disk_leaves_no_empty_claim(store, monkeypatch):
    def full(self, content):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"), claimed(store, {0: range(4)}):
            pass
    with claimed(store, {0: range(4)}):
        pass
