"""Which run of the partition stage made a file: the three files of one run carry a common id."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.errors import InputError
from stages.index.manifest import Manifest
from stages.partition.classes import ClassTable
from stages.partition.views import ViewPlan


def origin_of(
    manifest: Manifest, classes: ClassTable, labels: npt.NDArray[np.int32], plan: ViewPlan
) -> dict[str, str]:
    """Return digests of the manifest, of the labels and of the whole partition."""
    origin = {"manifest": manifest.digest, "labels": _digest(labels)}
    columns: tuple[npt.NDArray[Any], ...] = (
        classes.outlines,
        classes.group,
        classes.centres,
        classes.p_aug,
        plan.row,
        plan.view,
    )
    parts = "".join(map(_digest, columns))
    partition = hashlib.sha256("".join((*origin.values(), parts)).encode()).hexdigest()
    return {**origin, "partition": partition}


def are_of(classes: ClassTable, manifest: Manifest, labels: npt.NDArray[np.integer]) -> bool:
    """Whether classes were made on this manifest, together with these labels, as far as they state it."""
    own = {"manifest": manifest.digest, "labels": _digest(labels)}
    columns = () if classes.partitions == 1 else (classes.partitions,)
    return labels.shape[1:] == columns and all(
        classes.origin.get(name, digest) == digest for name, digest in own.items()
    )


def require_one_partition(
    folder: Path,
    manifest: Manifest,
    classes: ClassTable,
    labels: npt.NDArray[np.int32],
    plan: ViewPlan | None = None,
) -> None:
    """Raise InputError unless classes, labels and view plan come from one run on this manifest.

    A kill between two files leaves those of two runs. Files of earlier versions carry no digests.
    """
    if classes.origin.get("manifest", manifest.digest) != manifest.digest:
        raise InputError(f"{folder} was made for another {manifest.path}: run `pipeline partition` again")
    plan_id = plan.origin.get("partition") if plan is not None else None
    same_run = plan_id is None or plan_id == classes.origin.get("partition")
    if not same_run or classes.origin.get("labels", _digest(labels)) != _digest(labels):
        raise InputError(
            f"{folder} holds files of different runs: run `pipeline partition` again, which writes all three"
        )


def require_own_views(plan: ViewPlan, manifest: Manifest) -> None:
    """Raise InputError if the view plan was made for another manifest."""
    if plan.origin.get("manifest", manifest.digest) != manifest.digest:
        raise InputError(
            f"the view plan was made for another {manifest.path}: run `pipeline partition` again"
        )


def _digest(values: npt.NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
