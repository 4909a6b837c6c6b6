"""Store errors; each message says how to fix the fault."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class PlacecacheError(Exception):
    """Base of every error the library raises on purpose.

    The command line prints its message as one line and exits 1; anything else
    is a bug and keeps its traceback.
    """


class StoreError(PlacecacheError):
    """A feature store is absent, incomplete, damaged or in use."""


class StoreInUse(StoreError):
    """Another run is working on the same files."""


class RecipeMismatch(StoreError):
    """A feature store was made with another recipe than the one asked for."""


@contextlib.contextmanager
def storage_errors(path: object) -> Iterator[None]:
    """Turn errors of the network and of object storage into a StoreError that names `path`."""
    try:
        yield
    except FileNotFoundError as error:
        if "bucket" in str(error).lower():  # no object is an answer, no bucket is a fault
            raise StoreError(
                f"{path} is in a bucket that does not exist: create it, or edit the address (data.features)"
            ) from error
        raise
    except (FileExistsError, StoreError):
        raise
    except Exception as error:
        raise StoreError(
            f"{path} cannot be reached or written ({type(error).__name__}: {error}): "
            "check network, address and credentials, then run the same command again"
        ) from error
