"""Where bytes lie, on a disk or on object storage, and how they get there wholly or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.storage.remote import RemotePath

StoragePath = Path | RemotePath


def place_of(text: str, base: Path) -> StoragePath:
    """Return the place that a setting names.

    Parameters
    ----------
    text : str
        A folder, absolute or relative to `base`; ``file:///folder``; or an address such as
        ``s3://bucket/folder`` of any protocol that fsspec knows.
    base : Path
        Where relative folders begin.
    """
    protocol, separator, rest = text.partition("://")
    if not separator:
        return base / text
    return Path(rest) if protocol == "file" else RemotePath(text.rstrip("/"))


def sync(path: StoragePath) -> None:
    """Force a file's, or a folder's, content to the disk; objects are durable once written."""
    if isinstance(path, RemotePath):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it becomes `path` if the block succeeds.

    The content is forced to the disk before it gets its name, so a reader or a crash sees the old file,
    the new file, or none, but never a part. The rename itself may be lost in a power cut: a caller that
    must never see the old file again also syncs the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomic(path: StoragePath, content: bytes | memoryview) -> None:
    """Write a file so that a reader, or a crash, sees all of it or none of it; see `replacing`."""
    if isinstance(path, RemotePath):
        path.write_bytes(content)
        return
    with replacing(path) as partial:
        partial.write_bytes(content)


def create_new(path: StoragePath, content: bytes) -> bool:
    """Write a file if there is none of its name, which of several processes one can do; whether it did."""
    if isinstance(path, RemotePath):
        return path.create(content)
    try:
        file = path.open("xb")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(content)
    except OSError:  # a full disk, most of the time: leave no file that says nothing
        path.unlink(missing_ok=True)
        raise
    return True


def touch(path: StoragePath) -> None:
    """Make a file as young as if it were written now.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    """
    if isinstance(path, RemotePath):
        path.write_bytes(path.read_bytes())
    else:
        os.utime(path)


def modified(path: StoragePath) -> float:
    """Return when a file was written by the clock of what holds it, in seconds since 1970."""
    return path.modified() if isinstance(path, RemotePath) else path.stat().st_mtime


def read_values(path: StoragePath, dtype: npt.DTypeLike, count: int = -1, first: int = 0) -> npt.NDArray[Any]:
    """Return numbers out of a file that holds nothing else: `count` of them (-1: all) from number `first` on.

    A file that ends earlier gives fewer.
    """
    start = first * np.dtype(dtype).itemsize
    if not isinstance(path, RemotePath):
        return np.fromfile(path, dtype, count, offset=start)
    stop = None if count < 0 else start + count * np.dtype(dtype).itemsize
    content = bytearray(path.read_bytes(start, stop))  # a bytearray, for an array that can be written to
    return np.frombuffer(content, dtype, len(content) // np.dtype(dtype).itemsize)


def read_each(folder: StoragePath, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files of a folder that are there, out of those named."""
    if isinstance(folder, RemotePath):
        yield from folder.read_all(names).items()
        return
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            yield name, (folder / name).read_bytes()


def file_sizes(folder: StoragePath, names: Sequence[str]) -> dict[str, int]:
    """Lengths in bytes of the files under a folder that are there, out of those named."""
    sizes: dict[str, int] = {}
    if isinstance(folder, RemotePath):
        found = folder.sizes()
        return {name: found[name] for name in names if name in found}
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            sizes[name] = (folder / name).stat().st_size
    return sizes


def total_size(path: StoragePath) -> int:
    """Return how many bytes a file, or all files under a folder, have."""
    if isinstance(path, RemotePath):
        return sum(path.sizes().values())
    files = [path] if path.is_file() else (file for file in path.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files)
