"""The table of all classes, which later stages load."""

from __future__ import annotations

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
class ClassTable:
    """Every class, sorted by (group, p, q, heading); a class id is a row number of this table.

    A class is a square of cells, or one heading bin of a square. With several
    partitions an image has a class in each; the groups of the first partition come first.

    Attributes
    ----------
    group
        (K,) int32, group number u * N + v (4.4); later partitions continue the numbers.
    index
        (K,) int32, number of the class within its group (4.5).
    p, q
        (K,) int64, the cell (4.2); for a larger square, the cell in its south-west corner.
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
        N; each partition and heading group has N * N groups, some of which may be empty.
    zone
        UTM zone of the centres, for instance "10S"; "" if unknown.
    span
        (K,) int64, side of each class in cells; None if every class is one cell.
    heading
        (K,) int64, heading bin; None if a class covers all headings.
    partitions
        Number of cuts of the same images.
    heading_groups
        L, number of heading groups.
    origin
        Digests that tell which run made the table; see `stages.partition.identity`.
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
    origin: dict[str, str] = field(default_factory=dict)

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
        """Return the class ids of one partition, which are consecutive."""
        groups = self.groups // self.partitions
        start, stop = np.searchsorted(self.group, [partition * groups, (partition + 1) * groups])
        return slice(int(start), int(stop))

    @property
    def outlines(self) -> npt.NDArray[np.int64]:
        """Return p, q, span and heading (-1: all) of each class, (K, 4), which identify it."""
        heading = np.full(len(self), -1) if self.heading is None else self.heading
        return np.stack([self.p, self.q, self.spans, heading], axis=1)

    def group_slice(self, group: int) -> slice:
        """Return the class ids of one group, which are consecutive."""
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
        note: dict[str, Any] = {
            "cell_m": self.cell_m,
            "groups_per_side": self.groups_per_side,
            "zone": self.zone,
        }
        # A plain grid has none of these, and its file stays as it was before other schemes existed.
        columns |= {name: vars(self)[name] for name in ("span", "heading") if vars(self)[name] is not None}
        counts = {"partitions": self.partitions, "heading_groups": self.heading_groups}
        note |= {name: count for name, count in counts.items() if count != 1}
        if self.origin:
            note["origin"] = self.origin
        write_table(path, pa.table(columns), note)

    @classmethod
    def load(cls, path: Path) -> ClassTable:
        """Return the table stored at `path`.

        Raises
        ------
        InputError
            If the file is missing or is not a classes table.
        """
        columns, note = read_table(path, made_by=_MADE_BY)
        try:
            east, north = columns.pop("utm_east"), columns.pop("utm_north")
            columns["bucket"] = columns["bucket"].astype(np.str_)
            arrays: dict[str, Any] = {**columns, "centres": np.stack([east, north], axis=1)}
            return cls(**arrays, **note)
        except (KeyError, TypeError) as error:
            raise InputError(f"{path} is not a classes table ({error}): run `{_MADE_BY}` again") from error


def load_labels(path: Path) -> npt.NDArray[np.int32]:
    """Return the class of every row, (rows,), or that of each partition, (rows, P); -1 for none.

    Raises
    ------
    InputError
        If the file is missing or holds no such array.
    """
    try:
        labels = np.load(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: run `{_MADE_BY}`") from None
    except (ValueError, EOFError, SyntaxError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}): run `{_MADE_BY}` again") from error
    if not isinstance(labels, np.ndarray) or labels.dtype.kind != "i" or labels.ndim not in (1, 2):
        raise InputError(f"{path} holds no class ids: run `{_MADE_BY}` again")
    return labels


def in_class(
    labels: npt.NDArray[np.integer], classes: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.bool_]:
    """Return whether each row has a class in any partition, (rows,).

    Parameters
    ----------
    labels
        (rows,) class of every row, -1 for none; or (rows, P), that of each partition.
    classes
        (K,) which classes count; all, if None.
    """
    labelled: npt.NDArray[np.bool_] = labels >= 0
    if classes is not None:
        labelled &= classes[labels]
    return labelled if labels.ndim == 1 else np.asarray(labelled.any(axis=1))
