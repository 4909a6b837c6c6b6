"""The reader of each kind of source, and so of the positions in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.errors import InputError
from stages.index.batch import EntryBatch
from stages.index.file_changes import FileStatus
from stages.index.hashing import FILE_BYTES
from stages.index.sources.csv import read_csv
from stages.index.sources.folder import read_folder
from stages.index.sources.keys import KeyForms
from stages.index.sources.manifest import read_manifest
from stages.index.sources.text_list import read_list

_LATEST = (1 << 63) - 1  # dates after 2262 do not fit in 64 bits

_READERS: dict[str, Callable[[Path], Iterator[tuple[EntryBatch, int]]]] = {
    ".csv": read_csv,
    ".txt": read_list,
    ".parquet": read_manifest,
}


KINDS = frozenset(_READERS)
"""Endings of the files that can be sources."""


def read_source(source: Path) -> Iterator[tuple[EntryBatch, int]]:
    """Return the batches of a source, each with the number of images (folder) or bytes (file) read so far.

    Raises
    ------
    InputError
        If the source does not exist or its kind is unknown; while reading, if it is damaged.
    """
    if source.is_dir():
        return _with_files(_settled(read_folder(source), None), source)
    if not source.exists():
        raise InputError(
            f"{source} does not exist: expected a folder, a .csv or a .txt list; edit data in params.yaml"
        )
    reader = _READERS.get(source.suffix.lower())
    if reader is None:
        raise InputError(
            f"{source} is of no known kind: expected a folder of images, a .csv, a .txt list of paths "
            "or the manifest of a pack"
        )
    batches = reader(source)
    # A pack's keys are those in its shards.
    settled = _settled(batches, None if reader is read_manifest else KeyForms(source.parent))
    # A list of SF-XL names can name 41 million files, which would take hours to look at.
    return _with_files(settled, source.parent) if reader is read_csv else settled


def _settled(
    batches: Iterator[tuple[EntryBatch, int]], forms: KeyForms | None
) -> Iterator[tuple[EntryBatch, int]]:
    """Yield the batches with keys and headings in their normal form."""
    for batch, done in batches:
        if forms is not None:
            forms.settle(batch)
        batch.settle_headings()
        yield batch, done


def _with_files(batches: Iterator[tuple[EntryBatch, int]], root: Path) -> Iterator[tuple[EntryBatch, int]]:
    """Yield the batches with length and date of each image's file, 0 where there is none.

    A file of another length under the same key is another image. If no file of the first batch exists, the
    images are elsewhere, and no lengths are added.
    """
    local: bool | None = None
    for batch, done in batches:
        if local is not False:
            # One by one: 100,000 files of a local disk take 0.4 s, and no less in several threads.
            pairs = [_length_and_date(f"{root}/{key}") for key in batch.keys.to_pylist()]
            file_bytes, modified = np.array(pairs, np.int64).reshape(-1, 2).T.copy()
            local = bool(file_bytes.any()) if local is None else local
            if local:
                batch.files = FileStatus(file_bytes, modified)
                batch.extra_columns[FILE_BYTES] = pa.array(file_bytes)
        yield batch, done


def _length_and_date(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - millions of Path objects would take longer
        return status.st_size, min(status.st_mtime_ns, _LATEST)
    except (OSError, ValueError):
        return 0, 0
