"""Paths on object storage, reached through fsspec, with the methods of pathlib that a store needs."""

from __future__ import annotations

import contextlib
import fnmatch
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt

from cache.errors import StoreError, storage_errors

# Nothing is renamed here: a store exists if its description does, which is written last and deleted first.
DESCRIPTION = "zarr.json"
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_FRESH = {"use_listings_cache": False}  # other processes write too: never list from memory


@dataclass(frozen=True)
class RemotePath:
    """A name on object storage, such as ``s3://bucket/features/database.zarr``, without a slash at its end.

    There are no folders, only objects whose names have slashes. An object is written in one
    request, wholly or not at all, and is durable when the request returns.
    """

    url: str

    @cached_property
    def fs(self) -> Any:
        """The fsspec file system of the protocol; StoreError if its package is not installed."""
        protocol = self.url.partition("://")[0]
        try:
            return fsspec.filesystem(protocol, **_FRESH)
        except (ImportError, ValueError) as error:
            extra = _EXTRAS.get(protocol)
            fix = f"pip install 'placecache[{extra}]'" if extra else "expected a folder, s3:// or gs://"
            raise StoreError(f"{self.url} cannot be reached ({error}): {fix}") from error

    @property
    def key(self) -> str:
        """The name as the file system takes it."""
        return str(self.fs._strip_protocol(self.url))

    @property
    def name(self) -> str:
        """What follows the last slash."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its last suffix."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self) -> RemotePath:
        """What precedes the last slash."""
        return RemotePath(self.url.rpartition("/")[0])

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url}  # connections cannot be pickled

    def with_name(self, name: str) -> RemotePath:
        """Return the path with another last part."""
        return self.parent / name

    def resolve(self) -> RemotePath:
        """Return the path itself: there are no links."""
        return self

    def exists(self) -> bool:
        """Whether there is an object of this name."""
        with storage_errors(self):
            return bool(self.fs.isfile(self.key))

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a name needs no folder."""

    def rmdir(self) -> None:
        """Do nothing: there are no folders."""

    def sync(self) -> None:
        """Do nothing: objects are durable once written."""

    def identity(self) -> str:
        """Identity of the object; another object that takes its name later has another one."""
        with storage_errors(self):
            return str(self.fs.ukey(self.key))

    def modified(self) -> float:
        """When the object was written, by the storage's clock, in seconds since 1970."""
        with storage_errors(self):
            return float(self.fs.modified(self.key).timestamp())

    def update_mtime(self) -> None:
        """Set `modified` to now; raise FileNotFoundError if there is no object."""
        self.write_bytes(self.read_bytes())

    def read_bytes(self, start: int | None = None, stop: int | None = None) -> bytes:
        """Return the object's content, or its bytes `start` to `stop`."""
        with storage_errors(self):
            return bytes(self.fs.cat_file(self.key, start=start, end=stop))

    def write_bytes(self, content: bytes | memoryview) -> None:
        """Write the object in one request."""
        with storage_errors(self):
            self.fs.pipe_file(self.key, bytes(content))

    write_atomic = write_bytes  # one request writes all or nothing

    def remove_partials(self) -> None:
        """Do nothing: no write leaves a part."""

    def create_new(self, content: bytes, attempts: int = 3) -> bool:
        """Write the object if there is none; return whether it has this content, which should be unique."""
        with storage_errors(self):
            try:
                self.fs.pipe_file(self.key, content, mode="create")
                return True
            except Exception:
                with contextlib.suppress(FileNotFoundError):
                    # It may be ours: a request whose answer got lost is sent again, and then rejected.
                    return bool(self.fs.cat_file(self.key) == content)
                if attempts == 1:  # no object: it was just deleted, or there is a fault
                    raise
        return self.create_new(content, attempts - 1)

    def append(self, line: bytes) -> None:
        """Add a line to a log: nothing can be appended to an object, so each line is one under this name."""
        (self / uuid.uuid4().hex).write_bytes(line)

    def read_appended(self) -> bytes:
        """All lines of a log, in no order; empty if there are none."""
        return b"".join(content for _, content in self.read_each(list(self.sizes())))

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        with storage_errors(self), contextlib.suppress(*(FileNotFoundError,) if missing_ok else ()):
            self.fs.rm_file(self.key)

    def glob(self, pattern: str) -> list[RemotePath]:
        """Return the names directly under this one that match a pattern, in order."""
        with storage_errors(self), contextlib.suppress(FileNotFoundError):
            names = {name.rstrip("/").rpartition("/")[2] for name in self.fs.ls(self.key, detail=False)}
            return [self / name for name in sorted(names) if fnmatch.fnmatchcase(name, pattern)]
        return []

    def read_values(self, dtype: npt.DTypeLike, count: int = -1, first: int = 0) -> npt.NDArray[Any]:
        """Return `count` numbers (-1: all) from number `first` of an object of numbers; fewer if it ends."""
        itemsize = np.dtype(dtype).itemsize
        content = self.read_bytes(first * itemsize, None if count < 0 else (first + count) * itemsize)
        # A bytearray makes the array writable.
        return np.frombuffer(bytearray(content), dtype, len(content) // itemsize)

    def map_values(self, dtype: npt.DTypeLike, shape: tuple[int, int]) -> npt.NDArray[Any]:
        """Array of that shape at the start of the object; read whole, since objects cannot be mapped."""
        return self.read_values(dtype, shape[0] * shape[1]).reshape(shape)

    def read_each(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of those of the named objects that exist, fetched in parallel."""
        keys = {name: (self / name).key for name in names}
        with storage_errors(self):
            contents = self.fs.cat(list(keys.values()), on_error="return") if keys else {}
            for name, key in keys.items():
                content = contents.get(key, FileNotFoundError())
                if isinstance(content, bytes):
                    yield name, content
                elif not isinstance(content, FileNotFoundError):
                    raise content  # an object that could not be fetched must not pass for an absent one

    def sizes(self, names: Sequence[str] | None = None) -> dict[str, int]:
        """Bytes of all objects under this name, or of those named that exist: name from here -> bytes."""
        with storage_errors(self):
            infos = self.fs.find(self.key, detail=True)
        sizes = {key[len(self.key) + 1 :]: int(info["size"]) for key, info in infos.items()}
        return sizes if names is None else {name: sizes[name] for name in names if name in sizes}

    def nearest_folder(self) -> Path | None:
        """Return None: objects lie on no disk of this machine."""
        return None

    def reachable(self) -> bool:
        """Return True; raise StoreError if this machine cannot list the names under this one."""
        self.glob("*")
        return True

    def system_lock(self) -> AbstractContextManager[None] | None:
        """Return None: object storage has no locks."""
        return None

    def zarr_store(self) -> Any:
        """The store as Zarr takes it."""
        from zarr.storage import FsspecStore  # takes most of a second, and many commands open no store

        return FsspecStore.from_url(self.url, storage_options=_FRESH)

    @contextlib.contextmanager
    def build_store(self) -> Iterator[Path]:
        """Yield the path of a folder to make; if the block succeeds, its files are sent here."""
        with tempfile.TemporaryDirectory() as folder:
            new = Path(folder) / self.name
            yield new
            files = [file.relative_to(new).as_posix() for file in new.rglob("*") if file.is_file()]
            for name in sorted(files, key=lambda name: (name == DESCRIPTION, name)):
                (self / name).write_bytes((new / name).read_bytes())

    def rename_store(self, name: str) -> None:
        """Give the store another name: the storage copies its objects, then they are deleted here."""
        target = self.with_name(name)
        target.delete_store()
        with storage_errors(self):
            for names in filter(None, (self._names_but_description(), [DESCRIPTION])):
                self.fs.copy([(self / name).key for name in names], [(target / name).key for name in names])
        self.delete_store()

    def delete_store(self) -> None:
        """Delete all objects under this name, if there are any, the description first."""
        with storage_errors(self):
            for names in filter(None, ([DESCRIPTION], self._names_but_description())):
                with contextlib.suppress(FileNotFoundError):
                    self.fs.rm([(self / name).key for name in names])

    def has_store(self) -> bool:
        """Whether a store is here, sound or not."""
        return (self / DESCRIPTION).exists()

    def remove_leftovers(self) -> None:
        """Delete what kills left of this store. Lock the folder first: nobody may be building one."""
        if not self.has_store():
            self.delete_store()

    def _names_but_description(self) -> list[str]:
        return [name for name in self.sizes() if name != DESCRIPTION]
