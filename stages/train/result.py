"""What a training run did, for people and for meta.json."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.models.localiser.localiser import Localiser
from stages.partition.classes import ClassTable
from stages.train.config import TrainConfig
from stages.train.loop.trainer import LogLine, LoopState
from stages.train.loop.validation import Validation

BUCKETS = ("head", "mid", "tail")


@dataclass(frozen=True)
class TrainResult:
    """What a training run did.

    Attributes
    ----------
    steps : int
        Steps that the last pass took.
    samples : int
        Images and views drawn, in all passes.
    samples_per_s, seconds : float
        Speed and length of the passes: reading, first weights, steps and validations.
    loss : float
        Mean over the last stretch of the log.
    drawn : dict of str to int
        Samples per bucket of classes (head, mid, tail) in the last pass.
    images, masked, held_out, views : int
        Images trained on, images of classes left out since their features are
        bad, images held out for validation, views ready to join.
    validation_lr1 : float or None
        LR@1 in percent on the images held out when the weights were chosen; it flatters a little.
    kept_step : int
        The step that was chosen.
    classes : int
        Classes of the groups trained.
    groups : tuple of int
        The groups trained.
    projection : str
        "trained", or "frozen" where only some groups were trained.
    residency : str
        Where the features waited, and why there.
    resumed_step : int
        Step at which a checkpoint was taken up; 0 if there was none.
    """

    steps: int
    samples: int
    samples_per_s: float
    seconds: float
    loss: float
    drawn: dict[str, int]
    images: int
    masked: int
    held_out: int
    views: int
    validation_lr1: float | None
    kept_step: int
    classes: int
    groups: tuple[int, ...]
    projection: str
    residency: str
    resumed_step: int

    def facts(self) -> list[tuple[str, object]]:
        """Return (name, value) pairs for a person to read."""
        facts = asdict(self)
        facts["drawn"] = ", ".join(f"{name} {count:,}" for name, count in self.drawn.items())
        facts["groups"] = ", ".join(map(str, self.groups))
        return [(name.replace("_", " "), "none" if value is None else value) for name, value in facts.items()]


@dataclass(frozen=True)
class PassRecord:
    """What one pass over the data was like; plain numbers, so that a checkpoint can hold it.

    Attributes
    ----------
    steps, samples : int
        Steps taken, images and views drawn.
    drawn : dict of str to int
        Samples per bucket of classes.
    log : list of LogLine
        Loss and speed over the steps.
    images, views : int
        Images trained on, views ready to join.
    held_out : int
        Images held out.
    validation_lr1 : float or None
        LR@1 in percent of the weights kept.
    kept_step : int
        Their step.
    calibration : dict or None
        What the held-out images say of temperatures and confidences.
    """

    steps: int
    samples: int
    drawn: dict[str, int]
    log: list[LogLine]
    images: int
    views: int
    held_out: int
    validation_lr1: float | None
    kept_step: int
    calibration: dict[str, Any] | None = None

    @classmethod
    def of(
        cls,
        state: LoopState,
        drawn: npt.NDArray[np.int64],
        classes: ClassTable,
        validation: Validation,
        *,
        images: int,
        views: int,
    ) -> PassRecord:
        """Return the record of a finished pass in which `drawn` samples of each class were drawn."""
        held_out = len(validation)
        return cls(
            steps=state.step,
            samples=int(drawn.sum()),
            drawn={name: int(drawn[classes.bucket == name].sum()) for name in BUCKETS},
            log=state.log,
            images=images,
            views=views,
            held_out=held_out,
            validation_lr1=validation.kept_percent if held_out else None,
            kept_step=validation.kept_step if held_out else state.step,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> PassRecord:
        """Return what `as_dict` was made of."""
        return cls(**{**fields, "log": [LogLine(**line) for line in fields["log"]]})


def summarise(
    final: PassRecord,
    first: PassRecord,
    classes: ClassTable,
    *,
    groups: tuple[int, ...],
    seconds: float,
    samples: int,
    masked: int,
    whole: bool,
    residency: str,
    resumed_step: int,
) -> TrainResult:
    """Return the numbers of a finished run.

    Parameters
    ----------
    final : PassRecord
        The pass whose weights are kept.
    first : PassRecord
        The pass that was validated; the same one unless all images were trained on afterwards.
    classes : ClassTable
        All classes.
    groups : tuple of int
        The groups trained.
    seconds : float
        Time since the run began or was taken up.
    samples : int
        Images and views drawn in this time.
    masked : int
        Images left out since their features are bad.
    whole : bool
        Whether the projection was trained.
    residency : str
        Where the features waited, and why.
    resumed_step : int
        Step at which a checkpoint was taken up, 0 for none.
    """
    return TrainResult(
        steps=final.steps,
        samples=first.samples + (final.samples if final is not first else 0),
        samples_per_s=samples / max(seconds, 1e-9),
        seconds=seconds,
        loss=final.log[-1].loss if final.log else float("nan"),
        drawn=final.drawn,
        images=final.images,
        masked=masked,
        held_out=first.held_out,
        views=final.views,
        validation_lr1=first.validation_lr1,
        kept_step=first.kept_step,
        classes=int(np.isin(classes.group, groups).sum()),
        groups=groups,
        projection="trained" if whole else "frozen",
        residency=residency,
        resumed_step=resumed_step,
    )


def record(localiser: Localiser, config: TrainConfig, result: TrainResult, seed: int) -> None:
    """Put the lasting facts into meta.json: equal runs give equal files."""
    facts = asdict(result)
    for passing in ("seconds", "samples_per_s", "residency", "resumed_step"):
        del facts[passing]
    if not math.isfinite(facts["loss"]):
        facts["loss"] = None
    localiser.meta["training"] = {**facts, "seed": seed, "settings": asdict(config)}
