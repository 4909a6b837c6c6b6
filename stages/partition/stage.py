"""The partition stage: make classes, labels and the view plan of one manifest."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stages.errors import InputError
from stages.files import Progress, replacing, save_array
from stages.index.hashing import key_hashes
from stages.index.manifest import Manifest
from stages.partition import grid
from stages.partition.cells import CellPartition
from stages.partition.classes import ClassTable, in_class
from stages.partition.config import PartitionConfig
from stages.partition.groups import cut_into_groups
from stages.partition.identity import origin_of
from stages.partition.places import Places
from stages.partition.result import PartitionResult
from stages.partition.tail_augmentation import LongTail, long_tail, view_counts
from stages.partition.views import ViewPlan


@dataclass(frozen=True)
class PartitionInputs:
    """What the partition stage works on; the seed draws which images of mid and head classes get views."""

    config: PartitionConfig
    manifest: Path
    output: Path
    seed: int


def run(inputs: PartitionInputs, *, progress: Progress | None = None) -> PartitionResult:
    """Cut the manifest's images into classes and groups and plan their views; progress counts rows.

    Writes classes.parquet, labels.npy and views.parquet to `output`.

    Raises
    ------
    InputError
        If the manifest is missing, no cell keeps enough images, or the scheme
        needs data that the manifest lacks.
    """
    start = time.perf_counter()
    output, source = inputs.output, Manifest.open(inputs.manifest)
    cuts, config = cut_into_groups(source, inputs.config)
    tails = [long_tail(partition.images, config) for partition in cuts]
    counts = _view_counts(source, cuts[0].labels, tails[0], inputs, progress)
    classes = _class_table(cuts, tails, config, source.zone)
    places = len(Places.of(classes))
    if not places:
        raise InputError(
            f"no cell of {config.cell_m:g} m lies in a class of each of the {len(cuts)} partitions: "
            "raise partition.cell_m or lower partition.min_images_per_class"
        )
    plan = ViewPlan.of_counts(counts)
    labels = _joined_labels(cuts)
    origin = origin_of(source, classes, labels, plan)
    replace(classes, origin=origin).save(output / "classes.parquet")
    _save_labels(output / "labels.npy", labels)
    replace(plan, origin=origin).save(output / "views.parquet", source.row_digest)
    inside = int(in_class(labels).sum())
    slices = [classes.group_slice(group) for group in range(classes.groups)]
    return PartitionResult(
        scheme=config.scheme,
        rows=len(labels),
        images_in_classes=inside,
        images_dropped=len(labels) - inside,
        partitions=classes.partitions,
        classes=len(classes),
        places=places,
        groups_per_side=config.side,
        classes_per_group=tuple(part.stop - part.start for part in slices),
        head=int((classes.bucket == "head").sum()),
        mid=int((classes.bucket == "mid").sum()),
        tail=int((classes.bucket == "tail").sum()),
        tail_count=tails[0].tail_count,
        views=len(plan),
        views_per_image=len(plan) / inside,
        seconds=time.perf_counter() - start,
    )


def _view_counts(
    source: Manifest,
    labels: npt.NDArray[np.int32],
    tail: LongTail,
    inputs: PartitionInputs,
    progress: Progress | None,
) -> npt.NDArray[np.int16]:
    """Return the view count of every row; the keys are streamed."""
    counts = np.zeros(source.rows, np.int16)
    first = 0
    for batch in source.batches(["key"]):
        rows = slice(first, first + batch.num_rows)
        counts[rows] = view_counts(
            labels[rows], key_hashes(batch["key"]), tail.p_aug, inputs.config, inputs.seed
        )
        first = rows.stop
        if progress:
            progress(first, source.rows)
    return counts


def _class_table(
    cuts: tuple[CellPartition, ...], tails: list[LongTail], config: PartitionConfig, zone: str
) -> ClassTable:
    """Return the classes of all partitions one after the other, with consecutive group numbers."""
    heading_groups = config.heading.groups if config.scheme == "heading" else 1
    groups = config.side**2 * heading_groups
    group = np.concatenate([partition.group + np.int32(i * groups) for i, partition in enumerate(cuts)])
    cells = np.concatenate([partition.cells for partition in cuts])
    span = np.concatenate([partition.span for partition in cuts])
    # Classes are sorted by group, so the index within a group counts from its first class.
    first = np.searchsorted(group, group)
    return ClassTable(
        group=group,
        index=(np.arange(len(first)) - first).astype(np.int32),
        p=np.ascontiguousarray(cells[:, 0]),
        q=np.ascontiguousarray(cells[:, 1]),
        centres=grid.centres(cells, config.cell_m, span[:, None]),
        images=np.concatenate([partition.images for partition in cuts]),
        bucket=np.concatenate([tail.bucket for tail in tails]),
        p_aug=np.concatenate([tail.p_aug for tail in tails]),
        cell_m=config.cell_m,
        groups_per_side=config.side,
        zone=zone,
        span=None if (span == 1).all() else span,
        heading=cuts[0].heading,
        partitions=len(cuts),
        heading_groups=heading_groups,
    )


def _joined_labels(cuts: tuple[CellPartition, ...]) -> npt.NDArray[np.int32]:
    """Return the class of every row in each partition: (rows, partitions), or (rows,) for one."""
    if len(cuts) == 1:
        return cuts[0].labels
    joined, first = np.empty((len(cuts[0].labels), len(cuts)), np.int32), 0
    for column, partition in enumerate(cuts):
        joined[:, column] = np.where(partition.labels < 0, -1, partition.labels + first)
        first += len(partition.images)
    return joined


def _save_labels(path: Path, labels: npt.NDArray[np.int32]) -> None:
    with replacing(path) as partial:
        save_array(partial, labels)
