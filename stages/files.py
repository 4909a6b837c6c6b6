"""Files that stages write: atomic replacement, Parquet with a JSON note, printable names."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cache.storage.paths import replacing
from stages.errors import InputError

if TYPE_CHECKING:
    import h5py

__all__ = [
    "Progress",
    "hdf5_as_os_errors",
    "new_folder",
    "note_bytes",
    "note_of",
    "open_parquet",
    "path_at_home",
    "printable",
    "read_json",
    "read_table",
    "replacing",
    "save_array",
    "sha256_of",
    "write_table",
    "writing_hdf5",
]

NOTE_KEY = b"placecache"
_CHECKSUM = "crc32"
_ERROR_NUMBER = re.compile(r"errno = (\d+)")


Progress = Callable[[int, int], None]
"""Called with (done, total)."""


def printable(name: str | Path) -> str:
    """Return a name with every character that cannot be printed replaced by U+FFFD."""
    text = str(name).encode("utf-8", "replace").decode()
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, *, made_by: str) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises
    ------
    InputError
        If the file is missing or holds no JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: run `{made_by}`") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}): run `{made_by}` again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged (it holds no JSON object): run `{made_by}` again")
    return content


def path_at_home(path: Path) -> Path:
    """Return the path's counterpart in the project that a temporary workspace of DVC belongs to.

    `dvc exp run --temp` and `--queue` run somewhere in ``<project>/.dvc/tmp/exps``, where relative paths of
    data lead nowhere. The workspace is a copy of the Git repository, in which the project may be a subfolder.
    Any other path is returned as it is.
    """
    whole = path.absolute()
    for position in range(len(whole.parts) - 3):
        if whole.parts[position : position + 3] == (".dvc", "tmp", "exps"):
            project, workspace = Path(*whole.parts[:position]), Path(*whole.parts[: position + 4])
            inside = [folder for folder in (whole, *whole.parents) if folder.is_relative_to(workspace)]
            copy = next((folder for folder in inside if (folder / ".dvc").is_dir()), workspace)
            return project / whole.relative_to(copy)
    return path


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that becomes `path` if the block succeeds.

    Raises
    ------
    InputError
        If `path` exists.
    """
    if path.exists():
        raise InputError(f"{path} exists: delete it, or name another folder")
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_table(path: Path, table: pa.Table, note: dict[str, Any]) -> None:
    """Write a table that fits in memory atomically, with a JSON-serialisable note in its metadata."""
    with replacing(path) as partial:
        pq.write_table(
            table.replace_schema_metadata({NOTE_KEY: note_bytes(note)}),
            partial,
            compression="zstd",
            write_page_checksum=True,
        )


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write the file that `numpy.save` writes; errors have a number, which NumPy's do not."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)


@contextmanager
def writing_hdf5(path: Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file; raise OSError if any write of it failed.

    HDF5 writes some bytes when Python deletes an object, where Python ignores errors.
    """
    import h5py  # takes longer to import than most commands need

    ignored: list[BaseException] = []
    hooks = sys.unraisablehook, sys.excepthook
    sys.excepthook = lambda *_: None  # Cython prints such an error before it calls the other hook
    sys.unraisablehook = lambda unraisable: ignored.append(unraisable.exc_value or OSError())
    try:
        with hdf5_as_os_errors(path), h5py.File(path, "w") as file:
            yield file
    finally:
        sys.unraisablehook, sys.excepthook = hooks
    for error in ignored:
        raise _os_error(error, path) from error


@contextmanager
def hdf5_as_os_errors(path: Path) -> Iterator[None]:
    """Raise OSError where HDF5 reports a failing disk as RuntimeError or KeyError."""
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:
        if not _ERROR_NUMBER.search(str(error)):
            raise
        raise _os_error(error, path) from error


def _os_error(error: BaseException, path: Path) -> OSError:
    stated = _ERROR_NUMBER.search(str(error))
    number = int(stated[1]) if stated else errno.EIO
    return OSError(number, os.strerror(number), str(path))


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
        except (pa.ArrowException, OSError) as error:
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
        return pq.ParquetFile(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: run `{made_by}`") from None
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the disk's fault, not the file's
            raise
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
    try:
        note = json.loads(raw)
        sound = isinstance(note, dict) and note.pop(_CHECKSUM, None) in (None, _checksum(note))
    except (ValueError, RecursionError):
        sound = False
    if not sound:
        raise InputError(f"the metadata of {path} are damaged: run `{made_by}` again")
    return dict(note)


def note_bytes(note: dict[str, Any]) -> bytes:
    """Return the note as canonical JSON with a checksum, which `note_of` compares."""
    return _canonical({**note, _CHECKSUM: _checksum(note)})


def _checksum(note: dict[str, Any]) -> str:
    return f"{zlib.crc32(_canonical(note)):08x}"


def _canonical(note: dict[str, Any]) -> bytes:
    return json.dumps(note, sort_keys=True).encode()
