"""Merging heads that were trained separately into one localiser."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from stages.models.localiser.calibration_fit import drop_calibration
from stages.models.localiser.localiser import Localiser
from stages.train.result import BUCKETS, TrainResult


def merge_heads(output: Path, heads: Mapping[int, Path], results: Sequence[TrainResult]) -> TrainResult:
    """Put heads into the localiser whose projection they were trained against, and delete their folders.

    `heads` maps a group to the folder of the localiser with its new head. The result is the sum of all
    results; loss and LR@1 are means, because each head was validated among its own classes only.
    """
    localiser = Localiser.load(output)
    for group, folder in heads.items():
        trained = Localiser.load(folder)
        localiser.heads[group] = trained.heads[group]
        localiser.meta["training"].setdefault("heads", {})[str(group)] = trained.meta["training"]
    drop_calibration(localiser, sorted(heads))
    localiser.save(output)
    for folder in heads.values():
        shutil.rmtree(folder)
    return _sum(tuple(sorted(heads)), results)


def _sum(groups: tuple[int, ...], results: Sequence[TrainResult]) -> TrainResult:
    def total(name: str) -> int:
        return sum(getattr(result, name) for result in results)

    seconds = sum(result.seconds for result in results)
    validated = [result.validation_lr1 for result in results if result.validation_lr1 is not None]
    losses = [result.loss for result in results if result.steps]
    return replace(
        results[0],
        steps=total("steps"),
        samples=total("samples"),
        images=total("images"),
        held_out=total("held_out"),
        views=total("views"),
        classes=total("classes"),
        seconds=seconds,
        samples_per_s=total("samples") / max(seconds, 1e-9),
        loss=sum(losses) / len(losses) if losses else float("nan"),
        drawn={name: sum(result.drawn[name] for result in results) for name in BUCKETS},
        validation_lr1=sum(validated) / len(validated) if validated else None,
        kept_step=total("kept_step"),
        groups=groups,
    )
