"""The view plan: the augmented views of each image to extract."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.errors import InputError
from stages.files import read_table, write_table

_MADE_BY = "pipeline partition"


@dataclass(frozen=True)
class ViewPlan:
    """The augmented views to extract, sorted by (row, view).

    The index of a planned view is its row in the feature store of views.

    Attributes
    ----------
    row
        (V,) int64, manifest row of the image.
    view
        (V,) int16, number of the view among those of its image, from 0.
    origin
        Digests that tell which run made the plan; see `stages.partition.identity`.
    """

    row: npt.NDArray[np.int64]
    view: npt.NDArray[np.int16]
    origin: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def of_counts(cls, counts: npt.NDArray[np.integer[Any]]) -> ViewPlan:
        """Return the plan that gives row i counts[i] views."""
        row = np.repeat(np.arange(len(counts)), counts)
        first = np.repeat(np.cumsum(counts, dtype=np.int64) - counts, counts)
        return cls(row, (np.arange(len(row)) - first).astype(np.int16))

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
        digest = hashlib.sha256(images.encode())
        for column in (self.row, self.view):
            digest.update(column.data)
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write the plan as Parquet, atomically."""
        write_table(
            path, pa.table({"row": self.row, "view": self.view}), {"views": len(self), "origin": self.origin}
        )

    @classmethod
    def load(cls, path: Path) -> ViewPlan:
        """Return the plan stored at `path`.

        Raises
        ------
        InputError
            If the file is missing or is not a view plan.
        """
        columns, note = read_table(path, made_by=_MADE_BY)
        try:
            return cls(**columns, origin=note.get("origin", {}))
        except TypeError as error:
            raise InputError(f"{path} is not a view plan ({error}): run `{_MADE_BY}` again") from error
