"""Files that stages write: atomic replacement, Parquet with a JSON note, printable names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cache.storage.paths import replacing
from stages.errors import InputError

__all__ = [
    "Progress",
    "note_bytes",
    "note_of",
    "open_parquet",
    "printable",
    "read_table",
    "replacing",
    "write_table",
]

NOTE_KEY = b"placecache"


Progress = Callable[[int, int], None]
"""Called with (done, total)."""


def printable(name: str | Path) -> str:
    """Return a name with every character that cannot be printed replaced by U+FFFD."""
    text = str(name).encode("utf-8", "replace").decode()
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


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


def read_table(path: Path, *, made_by: str) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Return the columns and the note of a table that fits in memory.

    Raises
    ------
    InputError
        If the file is missing, damaged, or was not written by this program.
    """
    with open_parquet(path, made_by=made_by) as file:
        note = note_of(file, path, made_by=made_by)
        try:
            table = file.read()
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{path} cannot be read ({error}): run `{made_by}` again") from error
    # Writable, because torch warns about read-only arrays.
    return {name: np.require(table[name].to_numpy(), requirements="W") for name in table.column_names}, note


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
