"""Who is writing which chunks: one small file per claimed range, beside the store.

A claim keeps two runs from doing the same work. It is no lock that correctness hangs on: two
writers of one chunk would write the same bytes, each in one rename. A claim is a file that only
one process can create; its age tells processes on other hosts whether the holder still lives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cache.errors import StoreError
from cache.spec import number_ranges
from cache.storage.folder_lock import STALE_S, Holder, beating, clock, locked
from cache.storage.paths import StoragePath, create_new, modified


class StoreInUse(StoreError):
    """Another run is writing the chunks asked for."""


@dataclass(frozen=True)
class Claim:
    """A claim that was found: its file, the chunks it is for and who holds it (None: not yet written)."""

    path: StoragePath
    chunks: range
    holder: Holder | None
    age_s: float

    @property
    def dead(self) -> bool:
        """Whether nobody stands behind it any more."""
        return self.age_s > STALE_S if self.holder is None else self.holder.gone(self.age_s)

    def __str__(self) -> str:
        return "a run that is just starting" if self.holder is None else str(self.holder)


def claims_folder(store: StoragePath) -> StoragePath:
    """Return where the claims on a store lie: beside it, so that they are no part of it."""
    return store.with_name(store.name.removesuffix(".zarr") + ".claims")


def claims_on(store: StoragePath) -> list[Claim]:
    """Return the claims on a store whose holders are alive, as far as can be known from here."""
    return [claim for claim in _found(claims_folder(store)) if not claim.dead]


def require_unclaimed(store: StoragePath) -> None:
    """Check that no run is writing to a store.

    Raises
    ------
    StoreInUse
        If one is; it says who.
    """
    for claim in claims_on(store):
        raise StoreInUse(f"{store} is being written by {claim}: wait for that run or stop it")


@contextlib.contextmanager
def claimed(store: StoragePath, shards: Mapping[int, range]) -> Iterator[None]:
    """Hold the chunks of some work shards while the block runs.

    Parameters
    ----------
    store : Path or RemotePath
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
    try:
        with beating(held):
            yield
    finally:
        with locked(store.parent):
            _release(folder, held)


def _claim(folder: StoragePath, store: StoragePath, spans: Mapping[int, range]) -> list[StoragePath]:
    """Create the claim files, all or none; the folder's lock serialises this where the disk has locks."""
    holder = Holder.this_process()
    held: list[StoragePath] = []
    folder.mkdir(exist_ok=True)
    try:
        for claim in _found(folder):
            if claim.dead:
                claim.path.unlink(missing_ok=True)
        _refuse_overlap(folder, store, spans, held)
        for chunks in spans.values():
            path = folder / f"{chunks.start:06d}-{chunks.stop - 1:06d}.json"
            if create_new(path, holder.to_bytes()):
                held.append(path)
        # Again, now that ours are there to be seen: of two that start at once, one sees the other.
        _refuse_overlap(folder, store, spans, held)
    except BaseException:
        _release(folder, held)
        raise
    return held


def _refuse_overlap(
    folder: StoragePath, store: StoragePath, spans: Mapping[int, range], held: list[StoragePath]
) -> None:
    others = [claim for claim in _found(folder) if claim.path not in held]
    taken = {shard: claim for shard, chunks in spans.items() for claim in others if _overlap(chunks, claim)}
    if taken:
        raise StoreInUse(
            f"shards {number_ranges(sorted(taken))} of {store.stem} are being extracted by "
            f"{next(iter(taken.values()))}: wait for that run, stop it, or take others with --shards"
        )


def _overlap(chunks: range, claim: Claim) -> bool:
    return chunks.start < claim.chunks.stop and claim.chunks.start < chunks.stop


def _release(folder: StoragePath, held: list[StoragePath]) -> None:
    for path in held:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others have claims in it
        folder.rmdir()


def _found(folder: StoragePath) -> list[Claim]:
    """Return every claim file, with its age by the clock of what holds it."""
    paths: list[StoragePath] = sorted(folder.glob("[0-9]*-[0-9]*.json"), key=str)
    if not paths:
        return []
    now = clock(folder)
    found = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            age_s = now - modified(path)
            first, _, last = path.stem.partition("-")
            found.append(Claim(path, range(int(first), int(last) + 1), Holder.read(path), age_s))
    return found
