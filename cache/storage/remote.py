"""Names on object storage, reached through fsspec: as much of pathlib's manner as a store needs."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import fsspec

from cache.errors import StoreError

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
FRESH = {"use_listings_cache": False}  # what other processes write must be seen


@dataclass(frozen=True)
class RemotePath:
    """A name on object storage: ``s3://bucket/features/database.zarr``.

    There are no folders, only objects whose names have slashes. An object is written in one
    request, wholly or not at all, and is durable when the request returns.

    Attributes
    ----------
    url : str
        The whole address, without a slash at its end.
    """

    url: str

    @cached_property
    def fs(self) -> Any:
        """The fsspec file system that holds it, one per process and protocol.

        Raises
        ------
        StoreError
            If there is no such protocol, or its package is not installed.
        """
        protocol = self.url.partition("://")[0]
        try:
            return fsspec.filesystem(protocol, **FRESH)
        except (ImportError, ValueError) as error:
            extra = _EXTRAS.get(protocol)
            way = f"pip install 'placecache[{extra}]'" if extra else "expected a folder, s3:// or gs://"
            raise StoreError(f"{self.url} cannot be reached ({error}): {way}") from error

    @property
    def key(self) -> str:
        """Its name as the file system takes it."""
        return str(self.fs._strip_protocol(self.url))

    @property
    def name(self) -> str:
        """What follows the last slash."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """Its name without the last suffix."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self) -> RemotePath:
        """Return what comes before the last slash."""
        return RemotePath(self.url.rpartition("/")[0])

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url}  # connections do not travel to other processes

    def with_name(self, name: str) -> RemotePath:
        """Return its sibling of that name."""
        return self.parent / name

    def exists(self) -> bool:
        """Whether there is an object of this name."""
        with self._reached():
            return bool(self.fs.isfile(self.key))

    def is_dir(self) -> bool:
        """Return False: there are no folders, hence nothing half written in them."""
        return False

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a name needs no folder."""

    def rmdir(self) -> None:
        """Do nothing: there are no folders."""

    def size(self) -> int:
        """Length of the object in bytes."""
        with self._reached():
            return int(self.fs.info(self.key)["size"])

    def modified(self) -> float:
        """Return when the object was written, by the storage's clock, in seconds since 1970."""
        with self._reached():
            return float(self.fs.modified(self.key).timestamp())

    def identity(self) -> str:
        """Return what tells this object from another one that takes its name later."""
        with self._reached():
            return str(self.fs.ukey(self.key))

    def read_bytes(self, start: int | None = None, stop: int | None = None) -> bytes:
        """Return the object's content, or bytes `start` to `stop` of it."""
        with self._reached():
            return bytes(self.fs.cat_file(self.key, start=start, end=stop))

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the object's content as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes | memoryview) -> None:
        """Write the object in one request."""
        with self._reached():
            self.fs.pipe_file(self.key, bytes(content))

    def create(self, content: bytes, attempts: int = 3) -> bool:
        """Write the object if there is none of its name; whether this content is there now.

        Who wants to be told apart from others writes content of his own. What a storage calls its
        refusal differs, so an object that is gone when it is looked for is tried again.
        """
        with self._reached():
            try:
                self.fs.pipe_file(self.key, content, mode="create")
                return True
            except Exception:
                with contextlib.suppress(FileNotFoundError):
                    # It may be this one: a request whose answer got lost is sent again, and refused.
                    return bool(self.fs.cat_file(self.key) == content)
                if attempts == 1:
                    raise
        return self.create(content, attempts - 1)

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        with self._reached(), contextlib.suppress(*(FileNotFoundError,) if missing_ok else ()):
            self.fs.rm_file(self.key)

    def glob(self, pattern: str) -> list[RemotePath]:
        """Return the names directly under this one that match a pattern, in order."""
        with self._reached(), contextlib.suppress(FileNotFoundError):
            names = {found.rstrip("/").rpartition("/")[2] for found in self.fs.ls(self.key, detail=False)}
            return [self / name for name in sorted(names) if fnmatch.fnmatchcase(name, pattern)]
        return []

    def sizes(self) -> dict[str, int]:
        """Lengths in bytes of all objects under this name, however deep: name from here on -> length."""
        with self._reached():
            found = self.fs.find(self.key, detail=True)
            return {key[len(self.key) + 1 :]: int(info["size"]) for key, info in found.items()}

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """Contents of objects under this name, fetched side by side: name -> content, if it is there."""
        with self._reached():
            keys = {name: (self / name).key for name in names}
            contents = self.fs.cat(list(keys.values()), on_error="return") if keys else {}
            for content in contents.values():
                # What fails to arrive must not pass for what is not there.
                if isinstance(content, BaseException) and not isinstance(content, FileNotFoundError):
                    raise content
            found = {name: contents.get(key) for name, key in keys.items()}
            return {name: content for name, content in found.items() if isinstance(content, bytes)}

    def copy_all(self, names: list[str], target: RemotePath) -> None:
        """Copy objects under this name to the same names under another; the storage does it itself."""
        with self._reached():
            if names:
                self.fs.copy([(self / name).key for name in names], [(target / name).key for name in names])

    def delete_all(self, names: list[str]) -> None:
        """Delete objects under this name."""
        with self._reached(), contextlib.suppress(FileNotFoundError):
            if names:
                self.fs.rm([(self / name).key for name in names])

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """Turn what the network and the storage complain of into a sentence."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, StoreError):
            raise
        except Exception as error:
            raise StoreError(
                f"{self} cannot be reached or written ({type(error).__name__}: {error}): "
                "see to network, address and credentials, then run the same command again"
            ) from error
