"""Claims: small files beside a store that say which process is writing which chunks.

A claim keeps two runs from doing the same work. Correctness does not depend on it: two writers of one
chunk would write the same bytes, each in one rename. Only one process can create a claim file; its age
tells processes on other hosts whether the holder is still alive.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cache.errors import StoreInUse
from cache.spec import number_ranges
from cache.storage.folder_lock import Holder, heartbeat, is_dead, locked, read_holder, storage_time
from cache.storage.paths import AnyPath, StoragePath, storage_path


@dataclass(frozen=True)
class Claim:
    """A claim file, its chunks, its holder (None: unreadable) and seconds since its last heartbeat."""

    path: StoragePath
    chunks: range
    holder: Holder | None
    age_s: float

    @property
    def dead(self) -> bool:
        """Whether the holder is known to be dead, so that the claim is void."""
        return is_dead(self.holder, self.age_s)

    def __str__(self) -> str:
        return "an unknown process" if self.holder is None else str(self.holder)


def claims_folder(store: AnyPath) -> StoragePath:
    """Return the folder of the claims on a store: beside the store, not a part of it."""
    store = storage_path(store)
    return store.with_name(store.name.removesuffix(".zarr") + ".claims")


def claims_on(store: AnyPath) -> list[Claim]:
    """Return the claims on a store whose holders are alive, as far as this machine can know."""
    return [claim for claim in _claims_in(claims_folder(store)) if not claim.dead]


def require_unclaimed(store: AnyPath) -> None:
    """Check that no run is writing to a store; StoreInUse names the run."""
    for claim in claims_on(store):
        raise StoreInUse(f"{store} is being written by {claim}: wait for that run or stop it")


@contextlib.contextmanager
def claimed(store: AnyPath, shards: Mapping[int, range]) -> Iterator[None]:
    """Hold the chunks of some work shards while the block runs.

    `shards` maps the number of each shard to its chunks; shards without chunks need no claim. If another
    run holds any of these chunks, nothing is claimed and StoreInUse names that run.
    """
    store = storage_path(store)
    chunks_of_shard = {shard: chunks for shard, chunks in shards.items() if len(chunks)}
    if not chunks_of_shard:  # a complete store may lie on a disk that cannot be written
        yield
        return
    with locked(store.parent):
        paths = _claim(store, chunks_of_shard)
    try:
        with heartbeat(paths):
            yield
    finally:
        with locked(store.parent):
            _release(claims_folder(store), paths)


def _claim(store: StoragePath, chunks_of_shard: Mapping[int, range]) -> list[StoragePath]:
    """Create the claim files, all or none; the caller has locked the folder."""
    folder, holder = claims_folder(store), Holder.this_process()
    paths: list[StoragePath] = []
    folder.mkdir(exist_ok=True)
    try:
        for claim in _claims_in(folder):
            if claim.dead:
                claim.path.unlink(missing_ok=True)
        _require_free(store, chunks_of_shard, paths)
        for chunks in chunks_of_shard.values():
            path = folder / f"{chunks.start:06d}-{chunks.stop - 1:06d}.json"
            if path.create_new(holder.to_bytes()):
                paths.append(path)
        # Some storages and network disks do not honour the lock. Check again now that our claims can be
        # seen: of two runs that start at the same time, at least one sees the other.
        _require_free(store, chunks_of_shard, paths)
    except BaseException:
        _release(folder, paths)
        raise
    return paths


def _require_free(store: StoragePath, chunks_of_shard: Mapping[int, range], own: list[StoragePath]) -> None:
    others = [claim for claim in _claims_in(claims_folder(store)) if claim.path not in own]
    taken = {
        shard: claim
        for shard, chunks in chunks_of_shard.items()
        for claim in others
        if chunks.start < claim.chunks.stop and claim.chunks.start < chunks.stop
    }
    if taken:
        raise StoreInUse(
            f"shards {number_ranges(sorted(taken))} of {store.stem} are being extracted by "
            f"{next(iter(taken.values()))}: wait for that run, stop it, or take others with --shards"
        )


def _release(folder: StoragePath, paths: list[StoragePath]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
    for left in folder.glob(".*"):  # kills leave files of claims that were not complete
        left.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others have claims in it
        folder.rmdir()


def _claims_in(folder: StoragePath) -> list[Claim]:
    """Return every claim in the folder, dead or alive, aged by the storage's clock."""
    paths: list[StoragePath] = sorted(folder.glob("[0-9]*-[0-9]*.json"), key=str)
    if not paths:
        return []
    now = storage_time(folder)
    claims = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            first, _, last = path.stem.partition("-")
            claims.append(Claim(path, range(int(first), int(last) + 1), *read_holder(path, now)))
    return claims
