"""The classes table and the view plan: what the partition says, and all that later stages need of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from stages.errors import InputError
from stages.files import note_of, open_parquet, write_table

_MADE_BY = "pipeline partition"


@dataclass(frozen=True)
class ClassTable:
    """Every class, sorted by (group, p, q, heading); a class id is a row number of this table.

    A class is a square of cells, or with headings a part of one. Where there
    are several partitions, an image has a class in each, and the groups of
    the first come first.

    Attributes
    ----------
    group
        (K,) int32, group number u * N + v (4.4), on from there in further partitions.
    index
        (K,) int32, number of the class within its group (4.5).
    p, q
        (K,) int64, the cell (4.2); of a larger square the one in its south-west corner.
    centres
        (K, 2) float64, UTM east and north of the square's centre in metres (4.3).
    images
        (K,) int64, training images of the class.
    bucket
        (K,) str, "head", "mid" or "tail".
    p_aug
        (K,) float32, probability that a training image of the class is augmented.
    cell_m
        Side of a cell in metres.
    groups_per_side
        N; there are N * N groups for each partition and group of headings, some of which may hold no class.
    zone
        UTM zone of the centres, for instance "10S"; "" if unknown.
    span
        (K,) int64, side of each class in cells; None where every class is one cell.
    heading
        (K,) int64, number of the bin of headings; None where classes are of all headings.
    partitions
        How many times the same images are cut.
    heading_groups
        L, groups of headings.
    """

    group: npt.NDArray[np.int32]
    index: npt.NDArray[np.int32]
    p: npt.NDArray[np.int64]
    q: npt.NDArray[np.int64]
    centres: npt.NDArray[np.float64]
    images: npt.NDArray[np.int64]
    bucket: npt.NDArray[np.str_]
    p_aug: npt.NDArray[np.float32]
    cell_m: float
    groups_per_side: int
    zone: str
    span: npt.NDArray[np.int64] | None = None
    heading: npt.NDArray[np.int64] | None = None
    partitions: int = 1
    heading_groups: int = 1

    def __len__(self) -> int:
        return len(self.group)

    @property
    def groups(self) -> int:
        """Return the number of groups: N * N, times the partitions and the groups of headings."""
        return self.groups_per_side**2 * self.heading_groups * self.partitions

    @property
    def spans(self) -> npt.NDArray[np.int64]:
        """Return the side of each class in cells, (K,)."""
        return np.ones(len(self), np.int64) if self.span is None else self.span

    def partition_slice(self, partition: int) -> slice:
        """Return the class ids of one partition, which follow each other."""
        groups = self.groups // self.partitions
        start, stop = np.searchsorted(self.group, [partition * groups, (partition + 1) * groups])
        return slice(int(start), int(stop))

    @property
    def outlines(self) -> npt.NDArray[np.int64]:
        """Return p, q, span and heading (-1: all) of each class, (K, 4): what tells it from any other."""
        heading = np.full(len(self), -1) if self.heading is None else self.heading
        return np.stack([self.p, self.q, self.spans, heading], axis=1)

    def group_slice(self, group: int) -> slice:
        """Return the class ids of one group, which follow each other."""
        start, stop = np.searchsorted(self.group, [group, group + 1])
        return slice(int(start), int(stop))

    def save(self, path: Path) -> None:
        """Write the table as Parquet, atomically."""
        east, north = self.centres.T
        columns = {
            "group": self.group,
            "index": self.index,
            "p": self.p,
            "q": self.q,
            "utm_east": np.ascontiguousarray(east),
            "utm_north": np.ascontiguousarray(north),
            "images": self.images,
            "bucket": pa.array(self.bucket.tolist(), pa.string()),
            "p_aug": self.p_aug,
        }
        note = {"cell_m": self.cell_m, "groups_per_side": self.groups_per_side, "zone": self.zone}
        # Only what differs from a grid is written.
        columns |= {name: vars(self)[name] for name in ("span", "heading") if vars(self)[name] is not None}
        counts = {"partitions": self.partitions, "heading_groups": self.heading_groups}
        note |= {name: count for name, count in counts.items() if count != 1}
        write_table(path, pa.table(columns), note)

    @classmethod
    def load(cls, path: Path) -> ClassTable:
        """Return the table stored at `path`.

        Raises
        ------
        InputError
            If the file is missing or is no classes table.
        """
        with open_parquet(path, made_by=_MADE_BY) as file:
            note = note_of(file, path, made_by=_MADE_BY)
            columns = _columns(file, path)
        try:
            east, north = columns.pop("utm_east"), columns.pop("utm_north")
            columns["bucket"] = columns["bucket"].astype(np.str_)
            arrays: dict[str, Any] = {**columns, "centres": np.stack([east, north], axis=1)}
            return cls(**arrays, **note)
        except (KeyError, TypeError) as error:
            raise InputError(f"{path} is no classes table ({error}): run `{_MADE_BY}` again") from error


@dataclass(frozen=True)
class ViewPlan:
    """Which augmented views stage one extracts, sorted by (row, view).

    The number of a planned view is its row in the feature store of views.

    Attributes
    ----------
    row
        (V,) int64, manifest row of the image.
    view
        (V,) int16, number of the view among those of its image, from 0.
    """

    row: npt.NDArray[np.int64]
    view: npt.NDArray[np.int16]

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
        """Return the first view row of each image and how many views it has.

        Parameters
        ----------
        rows
            (n,) manifest rows, in any order.

        Returns
        -------
        tuple of ndarray
            (n,) int64 starts and (n,) int64 counts.
        """
        start = np.searchsorted(self.row, rows, side="left")
        stop = np.searchsorted(self.row, rows, side="right")
        return start, stop - start

    def save(self, path: Path) -> None:
        """Write the plan as Parquet, atomically."""
        write_table(path, pa.table({"row": self.row, "view": self.view}), {"views": len(self)})

    @classmethod
    def load(cls, path: Path) -> ViewPlan:
        """Return the plan stored at `path`.

        Raises
        ------
        InputError
            If the file is missing or is no view plan.
        """
        with open_parquet(path, made_by=_MADE_BY) as file:
            note_of(file, path, made_by=_MADE_BY)
            columns = _columns(file, path)
        try:
            return cls(**columns)
        except TypeError as error:
            raise InputError(f"{path} is no view plan ({error}): run `{_MADE_BY}` again") from error


def in_class(
    labels: npt.NDArray[np.int32], classes: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.bool_]:
    """Return whether each row is of a class in any partition, (rows,).

    Parameters
    ----------
    labels
        (rows,) class of every row, -1 for none; or (rows, P), that of each partition.
    classes
        (K,) which classes count; all, if None.
    """
    mine: npt.NDArray[np.bool_] = labels >= 0
    if classes is not None:
        mine &= classes[labels]
    return mine if labels.ndim == 1 else np.asarray(mine.any(axis=1))


def _columns(file: pq.ParquetFile, path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        table = file.read()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}): run `{_MADE_BY}` again") from error
    # Writable, since torch warns about wrapping arrays that are not.
    return {name: np.require(table[name].to_numpy(), requirements="W") for name in table.column_names}
