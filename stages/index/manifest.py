"""The manifest: one row per image in a fixed order, with its key and its UTM position.

The row number of an image is its row in the feature store. A manifest may have
tens of millions of rows, so it is written as a stream and read by column or by
a range of rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from stages.errors import InputError
from stages.files import note_of, open_parquet, path_at_home
from stages.index.hashing import FILE_BYTES, RowDigest, key_hashes

ROW_GROUP_ROWS = 1 << 17  # reading a range of rows decodes at most this many others at each end
_MADE_BY = "pipeline index"


@dataclass(frozen=True)
class Manifest:
    """One row per image: key, position and further columns of the source.

    Only the file's footer is in memory; columns are read on request.
    """

    path: Path
    metadata: pq.FileMetaData
    root: Path
    zone: str
    source: str
    digest: str
    skipped: int | None = None  # entries of the source that were left out; None in manifests of old versions
    noted_row_digest: str = ""  # "" in manifests of old versions

    @classmethod
    def open(cls, path: Path) -> Manifest:
        """Return the manifest stored at `path`.

        Raises
        ------
        InputError
            If the file is missing or was not written by `write_manifest`.
        """
        with open_parquet(path, made_by=_MADE_BY) as file:
            note = note_of(file, path, made_by=_MADE_BY)
            texts = [note.get(name) for name in ("root", "zone", "source", "digest")]
            if not all(isinstance(text, str) for text in texts):
                raise InputError(f"{path} is no manifest: run `{_MADE_BY}` again")
            # A relative root is relative to the manifest, so that a project can be moved as a whole.
            root = Path(os.path.normpath(path.parent / note["root"]))
            if not root.exists():
                root = Path(os.path.normpath(path_at_home(path.parent) / note["root"]))
            told = (note["zone"], note["source"], note["digest"], note.get("skipped"))
            return cls(path, file.metadata, root, *told, note.get("row_digest", ""))

    @cached_property
    def row_digest(self) -> str:
        """Digest of all keys and file lengths: which images these are, wherever they were taken."""
        if self.noted_row_digest:
            return self.noted_row_digest
        digest = RowDigest()
        for batch in self.batches(["key"]):
            digest.add(key_hashes(batch["key"]), None)
        return digest.hexdigest()

    def file_bytes(self) -> npt.NDArray[np.int64] | None:
        """Return the length of each image's file, (rows,), 0 where unknown; None if all are unknown."""
        if FILE_BYTES not in self.column_names:
            return None
        return np.asarray(self.column(FILE_BYTES), np.int64)

    @property
    def rows(self) -> int:
        """Number of images."""
        return int(self.metadata.num_rows)

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, the source's own last."""
        return list(self.metadata.schema.to_arrow_schema().names)

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return one whole column: a number array, or an object array of strings.

        Raises
        ------
        InputError
            If there is no such column.
        """
        if name not in self.column_names:
            raise InputError(f"{self.path} has no column '{name}': it has {', '.join(self.column_names)}")
        return _array(self._read([name], range(self.metadata.num_row_groups))[name])

    def keys(self, start: int, stop: int) -> list[str]:
        """Return the keys of rows start .. stop - 1, reading only the row groups that hold them."""
        keys: list[str] = self.part(["key"], start, stop)["key"].to_pylist()
        return keys

    def part(self, columns: list[str], start: int, stop: int) -> pa.Table:
        """Return some columns of rows start .. stop - 1, reading only the row groups that hold them."""
        start, stop = max(start, 0), min(stop, self.rows)
        if start >= stop:
            return self.metadata.schema.to_arrow_schema().empty_table().select(columns)
        sizes = [self.metadata.row_group(i).num_rows for i in range(self.metadata.num_row_groups)]
        ends = np.cumsum(sizes)
        first = int(np.searchsorted(ends, start, side="right"))
        last = int(np.searchsorted(ends, stop, side="left"))
        offset = start - (int(ends[first]) - sizes[first])
        return self._read(columns, range(first, last + 1)).slice(offset, stop - start)

    def positions(self) -> npt.NDArray[np.float64]:
        """Return (rows, 2) UTM east and north in metres."""
        positions = np.empty((self.rows, 2))
        start = 0
        for batch in self.batches(["utm_east", "utm_north"]):
            stop = start + batch.num_rows
            positions[start:stop, 0] = batch["utm_east"].to_numpy()
            positions[start:stop, 1] = batch["utm_north"].to_numpy()
            start = stop
        return positions

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order as record batches of bounded length, all columns or those named."""
        with self._opened() as file:
            yield from file.iter_batches(batch_size=ROW_GROUP_ROWS, columns=columns)

    def image_path(self, key: str) -> Path:
        """Return the file of the image with this key; ".." leads beside the root, even if that is a link."""
        return Path(os.path.normpath(self.root / key)) if key.startswith("../") else self.root / key

    def _read(self, columns: list[str], row_groups: range) -> pa.Table:
        # Each read opens the file, because reader threads share a manifest.
        with self._opened() as file:
            return file.read_row_groups(list(row_groups), columns=columns)

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        """Yield the open file; InputError if what is read is damaged."""
        try:
            # Buffered ahead, a pass over the keys of 41 million images would hold 2.4 GB.
            with pq.ParquetFile(
                self.path, metadata=self.metadata, page_checksum_verification=True, pre_buffer=False
            ) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno:  # the disk's fault, not the file's
                raise
            raise InputError(f"{self.path} is damaged ({error}): run `{_MADE_BY}` again") from error


def _array(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    # Writable, because torch warns about read-only arrays.
    return np.require(column.to_numpy(), requirements="W")
