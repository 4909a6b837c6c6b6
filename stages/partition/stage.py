"""The partition stage: one manifest -> classes, labels and the view plan."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stages.errors import InputError
from stages.files import Progress, replacing
from stages.index.hashing import key_hashes
from stages.index.manifest import Manifest
from stages.partition import grid
from stages.partition.cells import CellPartition
from stages.partition.classes import ClassTable, in_class
from stages.partition.config import PartitionConfig
from stages.partition.places import Places
from stages.partition.result import PartitionResult
from stages.partition.schemes.registry import SCHEMES
from stages.partition.tail_augmentation import LongTail, long_tail, view_counts
from stages.partition.views import ViewPlan


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
        If the manifest is missing, no cell keeps enough images, or the scheme
        needs what it does not tell.
    """
    start = time.perf_counter()
    source = Manifest.open(manifest)
    cuts = SCHEMES[config.scheme](source, config)
    tails = [long_tail(pieces.images, config) for pieces in cuts]
    counts = _view_counts(source, cuts[0].labels, tails[0], config, seed, progress)
    classes = _class_table(cuts, tails, config, source.zone)
    places = len(Places.of(classes))
    if not places:
        raise InputError(
            f"no cell of {config.cell_m:g} m lies in a class of each of the {len(cuts)} partitions: "
            "raise partition.cell_m or lower partition.min_images_per_class"
        )
    plan = ViewPlan.of_counts(counts)
    labels = _joined_labels(cuts)
    classes.save(output / "classes.parquet")
    _save_labels(output / "labels.npy", labels)
    plan.save(output / "views.parquet")
    seconds = time.perf_counter() - start
    return _result(config.scheme, classes, places, labels, tails[0].tail_count, plan, seconds)


def _view_counts(
    source: Manifest,
    labels: npt.NDArray[np.int32],
    tail: LongTail,
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


def _class_table(
    cuts: tuple[CellPartition, ...], tails: list[LongTail], config: PartitionConfig, zone: str
) -> ClassTable:
    """Return the classes of all partitions, one after the other; their groups are numbered on."""
    heading_groups = config.heading.groups if config.scheme == "heading" else 1
    groups = config.groups_per_side**2 * heading_groups
    group = np.concatenate([pieces.group + np.int32(i * groups) for i, pieces in enumerate(cuts)])
    cells = np.concatenate([pieces.cells for pieces in cuts])
    span = np.concatenate([pieces.span for pieces in cuts])
    # Groups follow each other, so a class's number within its group counts from the group's first class.
    first = np.searchsorted(group, group)
    return ClassTable(
        group=group,
        index=(np.arange(len(first)) - first).astype(np.int32),
        p=np.ascontiguousarray(cells[:, 0]),
        q=np.ascontiguousarray(cells[:, 1]),
        centres=grid.centres(cells, config.cell_m, span[:, None]),
        images=np.concatenate([pieces.images for pieces in cuts]),
        bucket=np.concatenate([tail.bucket for tail in tails]),
        p_aug=np.concatenate([tail.p_aug for tail in tails]),
        cell_m=config.cell_m,
        groups_per_side=config.groups_per_side,
        zone=zone,
        span=None if (span == 1).all() else span,
        heading=cuts[0].heading,
        partitions=len(cuts),
        heading_groups=heading_groups,
    )


def _joined_labels(cuts: tuple[CellPartition, ...]) -> npt.NDArray[np.int32]:
    """Return the class of every row in each partition, (rows, partitions), or (rows,) of the only one."""
    if len(cuts) == 1:
        return cuts[0].labels
    joined, first = np.empty((len(cuts[0].labels), len(cuts)), np.int32), 0
    for column, pieces in enumerate(cuts):
        joined[:, column] = np.where(pieces.labels < 0, -1, pieces.labels + first)
        first += len(pieces.images)
    return joined


def _save_labels(path: Path, labels: npt.NDArray[np.int32]) -> None:
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, labels)


def _result(
    scheme: str,
    classes: ClassTable,
    places: int,
    labels: npt.NDArray[np.int32],
    tail_count: int,
    plan: ViewPlan,
    seconds: float,
) -> PartitionResult:
    inside = int(in_class(labels).sum())
    slices = [classes.group_slice(group) for group in range(classes.groups)]
    return PartitionResult(
        scheme=scheme,
        rows=len(labels),
        images_in_classes=inside,
        images_dropped=len(labels) - inside,
        partitions=classes.partitions,
        classes=len(classes),
        places=places,
        classes_per_group=tuple(part.stop - part.start for part in slices),
        head=int((classes.bucket == "head").sum()),
        mid=int((classes.bucket == "mid").sum()),
        tail=int((classes.bucket == "tail").sum()),
        tail_count=tail_count,
        views=len(plan),
        views_per_image=len(plan) / inside,
        seconds=seconds,
    )
