"""The view plan: the augmented views of each image to extract."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.errors import InputError
from stages.files import note_of, open_parquet, read_table, write_table

_MADE_BY = "pipeline partition"
_COLUMNS = ["row", "view"]
_BLOCK_ROWS = 1 << 20


class ViewColumns(NamedTuple):
    """Manifest row (V,) int64 and number among the views of its image (V,) int16 of every view."""

    row: npt.NDArray[np.int64]
    view: npt.NDArray[np.int16]


@dataclass(frozen=True)
class ViewPlan:
    """The augmented views to extract, sorted by (row, view).

    The index of a planned view is its row in the feature store of views. A stored plan reads its columns
    when they are first used: to learn that a store belongs to it, its note is enough.

    Attributes
    ----------
    read
        Returns the columns.
    views
        Number of views V.
    origin
        Digests that tell which run made the plan; see `stages.partition.identity`.
    noted
        What the file states of the columns: the digest `rows` of the views of the images whose digest is
        `images`, and the `last_row`. Empty for plans in memory and in files of earlier versions.
    """

    read: Callable[[], ViewColumns]
    views: int
    origin: dict[str, str] = field(default_factory=dict)
    noted: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.views

    @cached_property
    def _columns(self) -> ViewColumns:
        return self.read()

    @property
    def row(self) -> npt.NDArray[np.int64]:
        """Manifest row of the image of each view, (V,)."""
        return self._columns.row

    @property
    def view(self) -> npt.NDArray[np.int16]:
        """Number of each view among those of its image, (V,), from 0."""
        return self._columns.view

    @property
    def last_row(self) -> int:
        """The last manifest row with a view, -1 if there is none."""
        if "last_row" in self.noted:
            return int(self.noted["last_row"])
        return int(self.row[-1]) if len(self) else -1

    @classmethod
    def of_columns(cls, row: npt.NDArray[np.int64], view: npt.NDArray[np.int16]) -> Self:
        """Return the plan with these columns."""
        return cls(lambda: ViewColumns(row, view), len(row))

    @classmethod
    def of_counts(cls, counts: npt.NDArray[np.integer[Any]]) -> Self:
        """Return the plan that gives row i counts[i] views."""
        views = int(counts.sum(dtype=np.int64))
        row, view, done = np.empty(views, np.int64), np.empty(views, np.int16), 0
        for start in range(0, len(counts), _BLOCK_ROWS):  # in blocks, to need no further array of V numbers
            block = counts[start : start + _BLOCK_ROWS]
            rows = np.repeat(np.arange(start, start + len(block)), block)
            first = np.repeat(np.cumsum(block, dtype=np.int64) - block, block)
            stop = done + len(rows)
            row[done:stop], view[done:stop] = rows, np.arange(len(rows)) - first
            done = stop
        return cls.of_columns(row, view)

    def of(self, row: int) -> slice:
        """Return the planned views of one image as a slice of view rows."""
        start, stop = np.searchsorted(self.row, [row, row + 1])
        return slice(int(start), int(stop))

    def offsets(
        self, rows: npt.NDArray[np.integer[Any]]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the first view row, (n,), and the number of views, (n,), of n manifest rows in any order."""
        start = np.searchsorted(self.row, rows, side="left")
        stop = np.searchsorted(self.row, rows, side="right")
        return start, stop - start

    def row_digest(self, images: str) -> str:
        """Return a digest of which views these are, given that of the manifest's images."""
        if self.noted.get("images") == images:
            return str(self.noted["rows"])
        digest = hashlib.sha256(images.encode())
        for column in self._columns:
            digest.update(column.data)
        return digest.hexdigest()

    def save(self, path: Path, images: str = "") -> None:
        """Write the plan as Parquet, atomically; `images` is the digest of the manifest's images, if any."""
        note: dict[str, Any] = {"views": len(self), "origin": self.origin}
        if images:
            note["noted"] = {"images": images, "rows": self.row_digest(images), "last_row": self.last_row}
        write_table(path, pa.table(self._columns._asdict()), note)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the plan stored at `path`.

        Raises
        ------
        InputError
            If the file is missing or is not a view plan.
        """
        with open_parquet(path, made_by=_MADE_BY) as file:
            names, views = file.schema_arrow.names, file.metadata.num_rows
            note = note_of(file, path, made_by=_MADE_BY)
        if names != _COLUMNS or not isinstance(note.get("noted", {}), dict):
            raise InputError(f"{path} is not a view plan ({', '.join(names)}): run `{_MADE_BY}` again")

        def read() -> ViewColumns:
            columns, now = read_table(path, made_by=_MADE_BY)
            if now != note:
                raise InputError(f"{path} was written again meanwhile: run the same command again")
            return ViewColumns(**columns)

        return cls(read, views, note.get("origin", {}), note.get("noted", {}))
