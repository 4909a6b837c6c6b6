"""The partition stage: one manifest -> classes, labels and the view plan."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stages import grid
from stages.classes import ClassTable, ViewPlan
from stages.keys import key_hashes
from stages.manifest import Manifest
from stages.parquet import replacing
from stages.partition.config import PartitionConfig
from stages.partition.cut import Cut, cut
from stages.partition.tail import Tail, long_tail, view_counts

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PartitionResult:
    """What the partition holds.

    Attributes
    ----------
    rows, images_in_classes, images_dropped
        Images of the manifest: all, those of a class, those of no class.
    classes
        Number of classes, K.
    classes_per_group
        The same by group.
    head, mid, tail
        The same by bucket.
    tail_count
        Classes with at most so many images are tail.
    views
        Planned views.
    views_per_image
        Planned views over the images of all classes.
    seconds
        Wall-clock time.
    """

    rows: int
    images_in_classes: int
    images_dropped: int
    classes: int
    classes_per_group: tuple[int, ...]
    head: int
    mid: int
    tail: int
    tail_count: int
    views: int
    views_per_image: float
    seconds: float

    def facts(self) -> list[tuple[str, object]]:
        """Return the lines to show a person."""
        return [
            ("images", self.rows),
            ("images in classes", self.images_in_classes),
            ("images dropped", self.images_dropped),
            ("classes", self.classes),
            ("classes per group", ", ".join(f"{count:,}" for count in self.classes_per_group)),
            ("head / mid / tail", f"{self.head:,} / {self.mid:,} / {self.tail:,}"),
            ("tail classes hold up to", self.tail_count),
            ("planned views", self.views),
            ("views per image", self.views_per_image),
            ("seconds", self.seconds),
        ]


def run(
    config: PartitionConfig, *, manifest: Path, output: Path, seed: int, progress: Progress | None = None
) -> PartitionResult:
    """Cut the manifest's images into classes and groups, plan their views, and return the numbers.

    Writes classes.parquet, labels.npy and views.parquet into `output`.

    Parameters
    ----------
    config
        The `partition` section of params.yaml.
    manifest
        The database's manifest.
    output
        Folder to write.
    seed
        Draws which images of mid and head classes get views.
    progress
        Called with (rows done, rows).

    Raises
    ------
    InputError
        If the manifest is missing, or no cell keeps enough images.
    """
    start = time.perf_counter()
    source = Manifest.open(manifest)
    pieces = cut(
        source.positions(),
        cell_m=config.cell_m,
        groups_per_side=config.groups_per_side,
        min_images=config.min_images_per_class,
    )
    tail = long_tail(pieces.images, config)
    counts = _view_counts(source, pieces.labels, tail, config, seed, progress)
    classes = _class_table(pieces, tail, config, source.zone)
    plan = ViewPlan.of_counts(counts)
    classes.save(output / "classes.parquet")
    _save_labels(output / "labels.npy", pieces.labels)
    plan.save(output / "views.parquet")
    return _result(classes, pieces, tail, plan, time.perf_counter() - start)


def _view_counts(
    source: Manifest,
    labels: npt.NDArray[np.int32],
    tail: Tail,
    config: PartitionConfig,
    seed: int,
    progress: Progress | None,
) -> npt.NDArray[np.int16]:
    """Return the view count of every row; the keys pass by as a stream."""
    counts = np.zeros(source.rows, np.int16)
    first = 0
    for batch in source.batches(["key"]):
        rows = slice(first, first + batch.num_rows)
        counts[rows] = view_counts(labels[rows], key_hashes(batch["key"]), tail.p_aug, config, seed)
        first = rows.stop
        if progress:
            progress(first, source.rows)
    return counts


def _class_table(pieces: Cut, tail: Tail, config: PartitionConfig, zone: str) -> ClassTable:
    # Groups follow each other, so a class's number within its group counts from the group's first class.
    first = np.searchsorted(pieces.group, pieces.group)
    return ClassTable(
        group=pieces.group,
        index=(np.arange(len(first)) - first).astype(np.int32),
        p=np.ascontiguousarray(pieces.cells[:, 0]),
        q=np.ascontiguousarray(pieces.cells[:, 1]),
        centres=grid.centres(pieces.cells, config.cell_m),
        images=pieces.images,
        bucket=tail.bucket,
        p_aug=tail.p_aug,
        cell_m=config.cell_m,
        groups_per_side=config.groups_per_side,
        zone=zone,
    )


def _save_labels(path: Path, labels: npt.NDArray[np.int32]) -> None:
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, labels)


def _result(classes: ClassTable, pieces: Cut, tail: Tail, plan: ViewPlan, seconds: float) -> PartitionResult:
    inside = int(classes.images.sum())
    slices = [classes.group_slice(group) for group in range(classes.groups)]
    return PartitionResult(
        rows=len(pieces.labels),
        images_in_classes=inside,
        images_dropped=len(pieces.labels) - inside,
        classes=len(classes),
        classes_per_group=tuple(part.stop - part.start for part in slices),
        head=int((tail.bucket == "head").sum()),
        mid=int((tail.bucket == "mid").sum()),
        tail=int((tail.bucket == "tail").sum()),
        tail_count=tail.tail_count,
        views=len(plan),
        views_per_image=len(plan) / inside,
        seconds=seconds,
    )
