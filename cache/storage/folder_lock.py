"""Folder locks, and the process that holds a lock or a claim: who it is and whether it is alive."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from cache.errors import StoreError, StoreInUse
from cache.storage.paths import AnyPath, StoragePath, storage_path

HEARTBEAT_S = 20.0
STALE_S = 300.0  # fifteen missed heartbeats, and longer than network file systems cache a file's age
_LOCK = ".lock"
_RETRY_S = 0.5


@dataclass(frozen=True)
class Holder:
    """The process that made a claim; its fields are those of a claim file (FORMAT.md)."""

    host: str
    boot: str  # id of the machine's current boot
    namespace: str  # of process ids: each container has its own
    process: int
    ticks: int  # from boot to the start of the process: process ids are used again
    since: str  # when the claim was made, local time
    token: str  # random, to tell claims of one process apart

    @classmethod
    def this_process(cls) -> Holder:
        """Return this process as the holder of a new claim."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(*_machine(), os.getpid(), _start_ticks(os.getpid()), now, uuid.uuid4().hex)

    @classmethod
    def parse(cls, content: bytes) -> Holder | None:
        """Return the holder that a file of this content names; None if it names none."""
        try:
            holder = cls(**json.loads(content))
        except (ValueError, TypeError, RecursionError):
            return None
        sound = isinstance(holder.process, int) and isinstance(holder.ticks, int)
        return holder if sound and abs(holder.process) < 1 << 31 else None

    def to_bytes(self) -> bytes:
        """Return the content of a file that names the holder."""
        return json.dumps(asdict(self)).encode()

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


def read_holder(file: StoragePath, now: float) -> tuple[Holder | None, float]:
    """Return the holder that a file names, None if unreadable, and the seconds since its last heartbeat.

    Such a file gets its name together with its content. A power cut can leave an empty one, which is
    infinitely old.
    """
    content = file.read_bytes()
    return Holder.parse(content), now - file.modified() if content else math.inf


def is_dead(holder: Holder | None, age_s: float) -> bool:
    """Whether the holder of a file is known to be dead.

    On this machine the process is looked up. Elsewhere, or if the file is not readable (None), a holder is
    dead if the file was not touched for `STALE_S` seconds.
    """
    if holder is None or not holder.ticks:
        return age_s > STALE_S
    host, boot, namespace = _machine()
    if holder.host != host or (holder.boot == boot and holder.namespace != namespace):
        return age_s > STALE_S
    return holder.boot != boot or _start_ticks(holder.process) != holder.ticks


def locked(folder: AnyPath) -> AbstractContextManager[None]:
    """Hold a folder for this process alone while the block runs; others that lock it wait.

    Object storage has no locks: there it is an object that only one process can create, and that is
    void if its process is dead.
    """
    folder = storage_path(folder)
    return folder.system_lock() or _lock_object(folder / _LOCK)


@contextlib.contextmanager
def held(file: AnyPath, work: str) -> Iterator[None]:
    """Hold a lock file for this process while the block runs.

    If another process holds it, StoreInUse says which one does the `work`.
    """
    file = storage_path(file)
    with locked(file.parent):
        with contextlib.suppress(FileNotFoundError):
            holder, age_s = read_holder(file, storage_time(file.parent))
            if not is_dead(holder, age_s):
                process = "another process" if holder is None else holder
                raise StoreInUse(f"{work} is already running ({process}): wait for that run or stop it")
            file.unlink(missing_ok=True)
        file.create_new(Holder.this_process().to_bytes())
    try:
        with heartbeat([file]):
            yield
    finally:
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def heartbeat(paths: Sequence[StoragePath]) -> Iterator[None]:
    """Touch files regularly while the block runs, so that others see that this process is alive."""
    stop = threading.Event()
    thread = threading.Thread(target=_touch, args=(paths, stop), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def storage_time(folder: StoragePath) -> float:
    """Return the current time by the clock that stamps files in a folder, perhaps another machine's."""
    probe = folder / f".clock.{uuid.uuid4().hex}"
    try:
        probe.create_new(b"")
        return probe.modified()
    except OSError:  # a read-only or full disk
        return time.time()
    finally:
        with contextlib.suppress(OSError):  # a read-only disk rejects this even for absent files
            probe.unlink(missing_ok=True)


@contextlib.contextmanager
def _lock_object(lock: StoragePath) -> Iterator[None]:
    while not lock.create_new(Holder.this_process().to_bytes()):
        with contextlib.suppress(FileNotFoundError):  # released meanwhile
            if is_dead(*read_holder(lock, storage_time(lock.parent))):
                lock.unlink(missing_ok=True)
                continue
        time.sleep(_RETRY_S)
    try:
        with heartbeat([lock]):
            yield
    finally:
        lock.unlink(missing_ok=True)


def _touch(paths: Sequence[StoragePath], stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        for path in paths:
            with contextlib.suppress(OSError, StoreError):
                path.update_mtime()


def _machine() -> tuple[str, str, str]:
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    try:
        return socket.gethostname(), boot.read_text().strip(), str(namespace.readlink())
    except OSError:
        return socket.gethostname(), "", ""


def _start_ticks(process: int) -> int:
    """Clock ticks from boot to the start of a process; 0 if there is no such process or it is a zombie."""
    try:
        info = psutil.Process(process)
        if info.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return 0
        # psutil adds the time of boot, which moves when the clock is set; ticks since boot stay the same.
        started_s: float = info.create_time() - psutil.boot_time()
        return round(started_s * os.sysconf("SC_CLK_TCK"))
    except psutil.Error:
        return 0
