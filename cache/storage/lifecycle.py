"""Stores as wholes: there or not, put in place, moved, deleted.

On a disk one rename does it. Object storage renames nothing, so there the order does it: a store is
there if its description, ``zarr.json``, is, which is therefore written last and deleted first. What a
kill leaves without one is no store, and is deleted before a store is made in its place.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from pathlib import Path
from typing import Any

from zarr.storage import FsspecStore

from cache.storage.paths import StoragePath, sync
from cache.storage.remote import FRESH, RemotePath

DESCRIPTION = "zarr.json"


def store_exists(path: StoragePath) -> bool:
    """Whether a folder, or what says that it is a store, is at the place of one."""
    return path.is_dir() or (path / DESCRIPTION).exists()


def store_identity(path: StoragePath) -> str:
    """Return what tells a store from another one that takes its place later; empty if there is none."""
    description = path / DESCRIPTION
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if isinstance(description, RemotePath):
            return description.identity()
        return str(description.stat().st_ino)
    return ""


def zarr_place(path: StoragePath) -> Any:
    """Return what Zarr takes for a place."""
    return FsspecStore.from_url(path.url, storage_options=FRESH) if isinstance(path, RemotePath) else path


def publish(new: Path, path: StoragePath) -> None:
    """Put a folder made on a disk in its place, forced to the disk or sent there."""
    files = [file for file in sorted(new.rglob("*")) if file != new / DESCRIPTION]
    if isinstance(path, RemotePath):
        for file in [*(file for file in files if file.is_file()), new / DESCRIPTION]:
            _at(path, file.relative_to(new)).write_bytes(file.read_bytes())
        return
    for file in [*files, new / DESCRIPTION]:
        sync(file)
    new.rename(path)
    sync(path.parent)


def move(path: StoragePath, target: StoragePath) -> None:
    """Give a store another place in the same folder."""
    if isinstance(path, RemotePath) and isinstance(target, RemotePath):
        names = [name for name in path.sizes() if name != DESCRIPTION]
        target.delete_all(list(target.sizes()))
        path.copy_all(names, target)
        path.copy_all([DESCRIPTION], target)
        drop(path)
    elif isinstance(path, Path) and isinstance(target, Path):
        path.rename(target)


def drop(path: StoragePath) -> None:
    """Delete a store, so that a kill leaves no half a store in its place."""
    if isinstance(path, RemotePath):
        path.delete_all([DESCRIPTION])
        path.delete_all(list(path.sizes()))
        return
    doomed = path.with_name(f".{path.name}.{uuid.uuid4().hex}.drop")
    with contextlib.suppress(FileNotFoundError):  # absent, or another process was faster
        path.rename(doomed)
        shutil.rmtree(doomed)


def remove_leftovers(path: StoragePath) -> None:
    """Delete what kills left at or beside `path`. The folder is locked: nobody is at work on these."""
    if isinstance(path, RemotePath):
        if not store_exists(path):
            path.delete_all(list(path.sizes()))
        return
    for left in path.parent.glob(f".{path.name}.*"):
        if left.suffix in (".new", ".drop"):
            shutil.rmtree(left, ignore_errors=True)


def _at(path: RemotePath, relative: Path) -> RemotePath:
    return path / relative.as_posix()
