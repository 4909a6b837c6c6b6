"""Paths on a disk or on object storage, with the same methods, and writes that are complete or absent."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil  # type: ignore[import-untyped]

from cache.storage.remote import RemotePath

_ABANDONED_S = 86400.0  # nobody takes a day for one file, not even on another machine
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


class LocalPath(PosixPath):
    """A file or folder on a disk: a pathlib path with the methods that `RemotePath` has too."""

    def identity(self) -> str:
        """Identity of the file; another file that takes its name later has another one."""
        return str(self.stat().st_ino)

    def modified(self) -> float:
        """When the file was written, by the clock of its file system, in seconds since 1970."""
        return self.stat().st_mtime

    def update_mtime(self) -> None:
        """Set `modified` to now; unlike `touch`, raise FileNotFoundError if the file does not exist."""
        os.utime(self)

    def sync(self) -> None:
        """Force the content of a file, or the names in a folder, to the disk."""
        descriptor = os.open(self, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def write_atomic(self, content: bytes | memoryview) -> None:
        """Write the file so that readers and crashes see all of it or none of it; see `replacing`."""
        with replacing(self) as partial:
            partial.write_bytes(content)

    def remove_partials(self) -> None:
        """Delete what killed writers of this file left beside it."""
        for partial in _partials_of(self):
            partial.unlink(missing_ok=True)

    def create_new(self, content: bytes) -> bool:
        """Write the file if there is none; return whether it did, which is true for one process only.

        A link gives the file its name when its content is complete, so that a kill leaves no empty file.
        """
        with naming_errors(self, self.with_name(f".{self.name}.{uuid.uuid4().hex}.partial")) as partial:
            try:
                partial.write_bytes(content)
                os.link(partial, self)
                return True
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return self._create_without_link(content)
            finally:
                partial.unlink(missing_ok=True)

    def _create_without_link(self, content: bytes) -> bool:
        """`create_new` on a file system without hard links, such as FAT."""
        try:
            file = self.open("xb")
        except FileExistsError:
            return False
        try:
            with file:
                file.write(content)
        except OSError:  # usually a full disk
            self.unlink(missing_ok=True)
            raise
        return True

    def append(self, line: bytes) -> None:
        """Add a line to a log, in one unbuffered write, so that lines of several processes do not mix."""
        with self.open("ab", buffering=0) as file:
            file.write(line)

    def read_appended(self) -> bytes:
        """All lines of a log; empty if there is none."""
        return self.read_bytes() if self.exists() else b""

    def read_values(self, dtype: npt.DTypeLike, count: int = -1, first: int = 0) -> npt.NDArray[Any]:
        """Return `count` numbers (-1: all) from number `first` of a file of numbers; fewer if it ends."""
        return np.fromfile(self, dtype, count, offset=first * np.dtype(dtype).itemsize)

    def map_values(self, dtype: npt.DTypeLike, shape: tuple[int, int]) -> npt.NDArray[Any]:
        """Array of that shape at the start of the file, read-only, mapped into memory: unread until used."""
        return np.memmap(self, dtype, "r", shape=shape)

    def read_each(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of those of the named files that exist in this folder."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield name, (self / name).read_bytes()

    def sizes(self, names: Sequence[str] | None = None) -> dict[str, int]:
        """Bytes of all files under this folder, or of those named that exist: name from here -> bytes."""
        if names is None:
            paths = [f"{folder}/{file}" for folder, _, files in os.walk(self) for file in files]
            names = ["."] if self.is_file() else [path.removeprefix(f"{self}/") for path in paths]
        sizes = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                sizes[name] = (self / name).stat().st_size
        return sizes

    def nearest_folder(self) -> Path | None:
        """Return the folder, or its nearest parent that exists: new files go to its disk."""
        return next(folder for folder in (self, *self.absolute().parents) if folder.exists())

    def reachable(self) -> bool:
        """Whether this machine sees the folder."""
        return self.absolute().is_dir()

    def system_lock(self) -> AbstractContextManager[None] | None:
        """Lock on the folder itself: it leaves no file behind and dies with the process."""
        return _flock(self)

    def zarr_store(self) -> Any:
        """The store as Zarr takes it."""
        return Path(self)

    @contextlib.contextmanager
    def build_store(self) -> Iterator[Path]:
        """Yield the path of a folder to make; if the block succeeds, one rename makes it this store."""
        new = self.with_name(f".{self.name}.{uuid.uuid4().hex}.new")
        try:
            yield new
            for file in new.rglob("*"):
                LocalPath(file).sync()
            new.rename(self)
            self.parent.sync()
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def rename_store(self, name: str) -> None:
        """Give the store another name in the same folder."""
        self.rename(self.with_name(name))

    def delete_store(self) -> None:
        """Delete the store, if there is one; the rename comes first, so that a kill leaves no half of it."""
        doomed = self.with_name(f".{self.name}.{uuid.uuid4().hex}.drop")
        with contextlib.suppress(FileNotFoundError):  # absent, or another process was faster
            self.rename(doomed)
            shutil.rmtree(doomed)

    def has_store(self) -> bool:
        """Whether a store is here, sound or not."""
        return self.is_dir()

    def remove_leftovers(self) -> None:
        """Delete what kills left of this store. Lock the folder first: nobody may be building one."""
        for left in self.parent.glob(f".{self.name}.*"):
            if left.suffix in (".new", ".drop"):
                shutil.rmtree(left, ignore_errors=True)


# Both classes have the same methods: mypy checks every call on a StoragePath against both.
StoragePath = LocalPath | RemotePath
AnyPath = str | Path | RemotePath


def storage_path(path: AnyPath, base: Path = Path()) -> StoragePath:
    """Return the path that a caller or a setting names: a folder, or an address on object storage.

    Folders are absolute, relative to `base`, or written as ``file:///folder``. An address such as
    ``s3://bucket/folder`` can have any protocol that fsspec knows.
    """
    text = str(path)
    protocol, separator, folder = text.partition("://")
    if separator and protocol != "file":
        return RemotePath(text.rstrip("/"))
    return LocalPath(base, folder if separator else text)


def total_size(path: AnyPath) -> int:
    """Bytes of a file, or of all files under a folder."""
    return sum(storage_path(path).sizes().values())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it becomes `path` if the block succeeds.

    The content is forced to the disk before it gets its name, so a reader or a crash sees the old file,
    the new file, or none, but never a part. The rename itself may be lost in a power cut: a caller that
    must never see the old file again also syncs the folder. What killed writers of `path` left is deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in filter(_is_abandoned, _partials_of(path)):
        left.unlink(missing_ok=True)
    partial = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    with naming_errors(path, partial):
        try:
            yield partial
            LocalPath(partial).sync()
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def naming_errors(path: Path, partial: Path) -> Iterator[Path]:
    """Yield a temporary path; let an OSError about it, or about no path, name `path` instead."""
    try:
        yield partial
    except OSError as error:
        # A write to a full disk names no file; an error without a number has only its text to show.
        if error.errno is not None and error.filename in (None, str(partial)):
            error.filename, error.filename2 = str(path), None
        raise


def _partials_of(path: Path) -> list[Path]:
    """Temporary files of a file, ours and those that Zarr writes."""
    try:
        names = [file.name for file in path.parent.iterdir() if file.name.endswith(".partial")]
    except FileNotFoundError:
        return []
    return [path.with_name(name) for name in names if name.removeprefix(".").startswith(f"{path.name}.")]


def _is_abandoned(partial: Path) -> bool:
    """Whether the writer of a temporary file is dead: a process of this host, or silent for a day."""
    name, _, process = partial.name.removesuffix(".partial").rpartition(".")
    try:
        written = partial.stat().st_mtime
        if time.time() - written > _ABANDONED_S:
            return True
        # Process ids are used again: a process that started later did not write the file.
        here = name.endswith(f".{socket.gethostname()}")
        return here and psutil.Process(int(process)).create_time() > written + 1
    except psutil.NoSuchProcess:
        return True
    except (FileNotFoundError, ValueError):  # finished meanwhile, or another kind of name
        return False


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that readers and crashes see all of it or none of it; see `replacing`."""
    LocalPath(path).write_atomic(content)


@contextlib.contextmanager
def _flock(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
