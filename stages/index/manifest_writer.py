"""Write a manifest as a stream of record batches, with its digests and a check for repeated keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from stages.errors import InputError
from stages.files import NOTE_KEY, note_bytes, path_at_home, replacing
from stages.index.hashing import ManifestDigest
from stages.index.manifest import ROW_GROUP_ROWS, Manifest

REQUIRED = pa.schema(
    [
        ("key", pa.string()),
        ("utm_east", pa.float64()),
        ("utm_north", pa.float64()),
        ("heading", pa.float32()),
        ("timestamp", pa.string()),
    ]
)


class DuplicateKeyError(InputError):
    """Rows of a manifest repeat keys: `rows` are all but the first of each key, `keys` a few examples."""

    def __init__(self, rows: npt.NDArray[np.int64], keys: list[str]) -> None:
        self.rows = rows
        self.keys = keys
        super().__init__(
            f"{len(rows):,} images repeat the key of an earlier one ({', '.join(keys)}): expected "
            "each path once; remove them or set index.on_error to skip"
        )


def write_manifest(
    path: Path,
    batches: Iterable[pa.RecordBatch],
    *,
    root: Path,
    zone: str,
    source: str,
    skipped: Callable[[], int] = int,
) -> Manifest:
    """Write a manifest as a stream, atomically, and return it opened.

    Parameters
    ----------
    path
        The Parquet file; an old one is replaced only when the new one is complete.
    batches
        Record batches of one schema: the columns of `REQUIRED` in any order,
        then any further ones.
    root
        Folder that the keys are relative to; a relative one is stored relative to the manifest.
    zone
        UTM zone of all positions, for instance "10S"; "" if unknown.
    source
        Origin of the positions: "names", "csv" or "exif".
    skipped
        Called after the last batch: how many entries of the source were left out.

    Raises
    ------
    InputError
        If there is no row, or a required column is missing or has another type.
    DuplicateKeyError
        If a key is repeated; nothing is written then.
    """
    digest = ManifestDigest()
    with replacing(path) as partial, ThreadPoolExecutor(1) as pool:
        writer: pq.ParquetWriter | None = None
        try:
            for group in _row_groups(batches):
                if writer is None:
                    writer = _writer(partial, group[0].schema)
                hashing = pool.submit(digest.add, group)
                writer.write_table(pa.Table.from_batches(group), row_group_size=ROW_GROUP_ROWS)
                hashing.result()
            if writer is None:
                raise InputError(f"no image to write to {path}: expected at least one with a position")
            note = {"root": root_text(root, path), "zone": zone, "source": source, "digest": digest.digest()}
            told = {"row_digest": digest.row_digest(), "skipped": skipped()}
            writer.add_key_value_metadata({NOTE_KEY: note_bytes(note | told)})
        finally:
            if writer is not None:
                writer.close()
        _reject_duplicates(partial, digest.duplicates())
    return Manifest.open(path)


def root_text(root: Path, manifest: Path) -> str:
    """Return a root as it is stored: a relative one is relative to the manifest."""
    return str(root) if root.is_absolute() else os.path.relpath(root, path_at_home(manifest.parent))


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Yield lists of batches that make one row group each; only the last may be smaller."""
    group: list[pa.RecordBatch] = []
    space = ROW_GROUP_ROWS
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            part = batch.slice(start, space)
            group.append(part)
            start += part.num_rows
            space -= part.num_rows
            if space == 0:
                yield group
                group, space = [], ROW_GROUP_ROWS
    if group:
        yield group


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    for field in REQUIRED:
        if field.name not in schema.names or schema.field(field.name).type != field.type:
            columns = ", ".join(f"{f.name} ({f.type})" for f in schema)
            raise InputError(f"a manifest needs a column {field.name} of type {field.type}: found {columns}")
    repetitive = [name for name in schema.names if name not in ("key", "utm_east", "utm_north")]
    return pq.ParquetWriter(
        path, schema, compression="snappy", use_dictionary=repetitive, write_page_checksum=True
    )


def _reject_duplicates(path: Path, rows: npt.NDArray[np.int64]) -> None:
    if not len(rows):
        return
    keys: list[str] = []
    with pq.ParquetFile(path, pre_buffer=False) as file:
        start = 0
        for batch in file.iter_batches(batch_size=ROW_GROUP_ROWS, columns=["key"]):
            inside = rows[(rows >= start) & (rows < start + len(batch))][: 3 - len(keys)]
            keys += [batch["key"][int(row) - start].as_py() for row in inside]
            start += len(batch)
            if len(keys) == 3:
                break
    raise DuplicateKeyError(rows, keys)
