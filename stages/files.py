"""Parquet files that appear whole or not at all, with a JSON note in their metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.errors import InputError

NOTE_KEY = b"placecache"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` if the block succeeds and vanishes if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_table(path: Path, table: pa.Table, note: dict[str, Any]) -> None:
    """Write a table that fits in memory, atomically.

    Parameters
    ----------
    path
        Where the file goes; folders are made.
    table
        The rows.
    note
        JSON-serialisable facts to keep in the file's metadata.
    """
    with replacing(path) as partial:
        pq.write_table(
            table.replace_schema_metadata({NOTE_KEY: note_bytes(note)}), partial, compression="zstd"
        )


def open_parquet(path: Path, *, made_by: str) -> pq.ParquetFile:
    """Return the opened file.

    Parameters
    ----------
    path
        An artifact of an earlier stage.
    made_by
        The command that makes it, named in errors.

    Raises
    ------
    InputError
        If there is no such file or it is not Parquet.
    """
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: run `{made_by}`") from None
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is not a readable Parquet file ({error}): run `{made_by}` again") from error


def note_of(file: pq.ParquetFile, path: Path, *, made_by: str) -> dict[str, Any]:
    """Return the JSON note kept in a file's metadata.

    Raises
    ------
    InputError
        If the file holds none, so that it was not written by this program.
    """
    raw = (file.metadata.metadata or {}).get(NOTE_KEY)
    if raw is None:
        raise InputError(f"{path} carries no placecache metadata: expected a file written by `{made_by}`")
    note: dict[str, Any] = json.loads(raw)
    return note


def note_bytes(note: dict[str, Any]) -> bytes:
    """Return the note as canonical JSON."""
    return json.dumps(note, sort_keys=True).encode()
