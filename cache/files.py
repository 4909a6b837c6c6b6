"""Files that are either wholly there or not there at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def sync(path: Path) -> None:
    """Force a file's, or a folder's, content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that a reader, or a crash, meets all of it or none of it.

    Its content is on the disk before it has its name. The name itself follows when the file system
    next writes its journal, at the latest with the next file that is forced to the disk: a power cut
    may lose the file, never tear it. Who replaces a file and must not find the old one again syncs
    the folder.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:  # a full disk, most of the time: leave no crumbs on it
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone, as far as others ask for it the same way.

    The lock lies on the folder itself, so it leaves no file behind and dies with the process.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
