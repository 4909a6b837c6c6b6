"""The reader of each kind of source, and so of the positions in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from stages.errors import InputError
from stages.index.batch import EntryBatch
from stages.index.sources.csv import read_csv
from stages.index.sources.folder import read_folder
from stages.index.sources.manifest import read_manifest
from stages.index.sources.text_list import read_list

_READERS: dict[str, Callable[[Path], Iterator[tuple[EntryBatch, int]]]] = {
    ".csv": read_csv,
    ".txt": read_list,
    ".parquet": read_manifest,
}


def read_source(source: Path) -> Iterator[tuple[EntryBatch, int]]:
    """Return the batches of a source, each with the number of images (folder) or bytes (file) read so far.

    Raises
    ------
    InputError
        If the source does not exist or its kind is unknown; while reading, if it is damaged.
    """
    if source.is_dir():
        return read_folder(source)
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
    return reader(source)
