"""Who is writing which chunks: one small file per claimed range, beside the store.

A claim keeps two runs from doing the same work. It is no lock that correctness hangs on: two
writers of one chunk would write the same bytes, each in one rename. A claim is a file that only
one process can create; its age tells processes on other hosts whether the holder still lives.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cache.errors import StoreError
from cache.files import locked
from cache.spec import number_ranges

HEARTBEAT_S = 20.0
STALE_S = 300.0  # fifteen missed heartbeats, and more than network file systems cache a file's age


class StoreInUse(StoreError):
    """Another run is writing the chunks asked for."""


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

    def gone(self, age_s: float) -> bool:
        """Whether the holder is known to be dead: looked up here, concluded from silence elsewhere."""
        host, boot, namespace = _machine()
        elsewhere = self.host != host or (self.boot == boot and self.namespace != namespace)
        if elsewhere or not self.ticks:
            return age_s > STALE_S
        return self.boot != boot or _start_ticks(self.process) != self.ticks

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


@dataclass(frozen=True)
class Claim:
    """A claim that was found: its file, the chunks it is for and who holds it (None: not yet written)."""

    path: Path
    chunks: range
    holder: Holder | None
    age_s: float

    @property
    def dead(self) -> bool:
        """Whether nobody stands behind it any more."""
        return self.age_s > STALE_S if self.holder is None else self.holder.gone(self.age_s)

    def __str__(self) -> str:
        return "a run that is just starting" if self.holder is None else str(self.holder)


def claims_folder(store: Path) -> Path:
    """Return where the claims on a store lie: beside it, so that they are no part of it."""
    return store.with_name(store.name.removesuffix(".zarr") + ".claims")


def claims_on(store: Path) -> list[Claim]:
    """Return the claims on a store whose holders are alive, as far as can be known from here."""
    return [claim for claim in _found(claims_folder(store)) if not claim.dead]


def require_unclaimed(store: Path) -> None:
    """Check that no run is writing to a store.

    Raises
    ------
    StoreInUse
        If one is; it says who.
    """
    for claim in claims_on(store):
        raise StoreInUse(f"{store} is being written by {claim}: wait for that run or stop it")


@contextlib.contextmanager
def claimed(store: Path, shards: Mapping[int, range]) -> Iterator[None]:
    """Hold the chunks of some work shards while the block runs.

    Parameters
    ----------
    store : Path
        The store; claims lie beside it.
    shards : mapping of int to range
        Number of each shard -> its chunks. Shards without chunks need no claim.

    Raises
    ------
    StoreInUse
        If another run holds any of these chunks; nothing is claimed then.
    """
    spans = {shard: chunks for shard, chunks in shards.items() if len(chunks)}
    folder = claims_folder(store)
    with locked(store.parent):
        held = _claim(folder, store, spans)
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(held, stop), name="claims", daemon=True)
    beating.start()
    try:
        yield
    finally:
        stop.set()
        beating.join()
        with locked(store.parent):
            _release(folder, held)


def _claim(folder: Path, store: Path, spans: Mapping[int, range]) -> list[Path]:
    """Create the claim files, all or none; the folder's lock serialises this where the disk has locks."""
    holder = Holder.this_process()
    held: list[Path] = []
    folder.mkdir(exist_ok=True)
    try:
        for claim in _found(folder):
            if claim.dead:
                claim.path.unlink(missing_ok=True)
        _refuse_overlap(folder, store, spans, held)
        for chunks in spans.values():
            path = folder / f"{chunks.start:06d}-{chunks.stop - 1:06d}.json"
            with contextlib.suppress(FileExistsError), path.open("x") as file:
                held.append(path)
                json.dump(asdict(holder), file)
        # Again, now that ours are there to be seen: of two that start at once, one sees the other.
        _refuse_overlap(folder, store, spans, held)
    except BaseException:
        _release(folder, held)
        raise
    return held


def _refuse_overlap(folder: Path, store: Path, spans: Mapping[int, range], held: list[Path]) -> None:
    others = [claim for claim in _found(folder) if claim.path not in held]
    taken = {shard: claim for shard, chunks in spans.items() for claim in others if _overlap(chunks, claim)}
    if taken:
        raise StoreInUse(
            f"shards {number_ranges(sorted(taken))} of {store.stem} are being extracted by "
            f"{next(iter(taken.values()))}: wait for that run, stop it, or take others with --shards"
        )


def _overlap(chunks: range, claim: Claim) -> bool:
    return chunks.start < claim.chunks.stop and claim.chunks.start < chunks.stop


def _release(folder: Path, held: list[Path]) -> None:
    for path in held:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others have claims in it
        folder.rmdir()


def _beat(held: list[Path], stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        for path in held:
            with contextlib.suppress(OSError):
                os.utime(path)


def _found(folder: Path) -> list[Claim]:
    """Return every claim file, with its age by the clock of the disk that holds it."""
    paths = sorted(folder.glob("[0-9]*-[0-9]*.json"))
    if not paths:
        return []
    now = _disk_clock(folder)
    found = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            age_s = now - path.stat().st_mtime
            first, _, last = path.stem.partition("-")
            found.append(Claim(path, range(int(first), int(last) + 1), _read(path), age_s))
    return found


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text()))
    except (ValueError, TypeError):  # created but not yet written
        return None


def _disk_clock(folder: Path) -> float:
    """Return the present time as the file system stamps it, which may be another machine's."""
    probe = folder / f".clock.{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:  # a read-only or full disk
        return time.time()
    finally:
        probe.unlink(missing_ok=True)


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
