"""Which process holds something, whether it still lives, and locks for as long as a block runs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cache.errors import StoreError
from cache.storage.paths import StoragePath, create_new, modified, touch
from cache.storage.remote import RemotePath

HEARTBEAT_S = 20.0
STALE_S = 300.0  # fifteen missed heartbeats, and more than network file systems cache a file's age
_LOCK = ".lock"
_ASK_AGAIN_S = 0.5


@dataclass(frozen=True)
class Holder:
    """The process that made a claim.

    Attributes
    ----------
    host, boot, namespace : str
        Its machine, the machine's present boot, and its process namespace (a container has its own).
    process, ticks : int
        Its number, and when it started in clock ticks since boot: numbers are used again.
    since : str
        When the claim was made, local time.
    token : str
        Identity of the claim.
    """

    host: str
    boot: str
    namespace: str
    process: int
    ticks: int
    since: str
    token: str

    @classmethod
    def this_process(cls) -> Holder:
        """Return a new claim's holder: the process that asks."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(*_machine(), os.getpid(), _start_ticks(os.getpid()), now, uuid.uuid4().hex)

    @classmethod
    def read(cls, path: StoragePath) -> Holder | None:
        """Return the holder that a file names; None if it is not written yet."""
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError):
            return None

    def to_bytes(self) -> bytes:
        """Return the content of a file that names the holder."""
        return json.dumps(asdict(self)).encode()

    def gone(self, age_s: float) -> bool:
        """Whether the holder is known to be dead: looked up here, concluded from silence elsewhere."""
        host, boot, namespace = _machine()
        elsewhere = self.host != host or (self.boot == boot and self.namespace != namespace)
        if elsewhere or not self.ticks:
            return age_s > STALE_S
        return self.boot != boot or _start_ticks(self.process) != self.ticks

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


@contextlib.contextmanager
def locked(folder: StoragePath) -> Iterator[None]:
    """Hold a folder for this process alone, as far as others ask for it the same way.

    On a disk the lock lies on the folder itself, so it leaves no file behind and dies with the
    process. On object storage it is an object that only one process can create; that of a process
    known to be dead, or silent for long, is void.
    """
    if isinstance(folder, RemotePath):
        with _lock_object(folder / _LOCK):
            yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def beating(paths: Sequence[StoragePath]) -> Iterator[None]:
    """Touch files now and then while the block runs, for others to see that this process lives."""
    stop = threading.Event()
    thread = threading.Thread(target=_beat, args=(paths, stop), name="claims", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def clock(folder: StoragePath) -> float:
    """Return the present time as what holds the folder stamps it, which may be another machine's."""
    probe = folder / f".clock.{uuid.uuid4().hex}"
    try:
        create_new(probe, b"")
        return modified(probe)
    except OSError:  # a read-only or full disk
        return time.time()
    finally:
        with contextlib.suppress(OSError):  # read-only: it says so of absent files too
            probe.unlink(missing_ok=True)


@contextlib.contextmanager
def _lock_object(lock: RemotePath) -> Iterator[None]:
    while not lock.create(Holder.this_process().to_bytes()):
        with contextlib.suppress(FileNotFoundError):  # given back meanwhile
            holder, age_s = Holder.read(lock), clock(lock.parent) - lock.modified()
            if age_s > STALE_S if holder is None else holder.gone(age_s):
                lock.unlink(missing_ok=True)
                continue
        time.sleep(_ASK_AGAIN_S)
    try:
        with beating([lock]):
            yield
    finally:
        lock.unlink(missing_ok=True)


def _beat(paths: Sequence[StoragePath], stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        for path in paths:
            with contextlib.suppress(OSError, StoreError):
                touch(path)


def _machine() -> tuple[str, str, str]:
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    try:
        return socket.gethostname(), boot.read_text().strip(), str(namespace.readlink())
    except OSError:
        return socket.gethostname(), "", ""


def _start_ticks(process: int) -> int:
    """Return when a process started; 0 if there is none, or it is dead and only not yet buried."""
    try:
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if state in "ZX" else int(fields[18])
