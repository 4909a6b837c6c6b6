"""The result of a training run, for people and for meta.json."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.models.localiser.localiser import Localiser
from stages.partition.classes import ClassTable, in_class
from stages.train.data.source import FeatureSource
from stages.train.inputs import TrainInputs
from stages.train.loop.trainer import LogLine, LoopState
from stages.train.loop.validation import Validation
from stages.train.prepare import Files, choose_groups

BUCKETS = ("head", "mid", "tail")


@dataclass(frozen=True)
class TrainResult:
    """What a training run did.

    Attributes
    ----------
    steps, drawn, images, views
        Of the last pass: steps taken, samples of each bucket of classes (head, mid, tail), images trained on,
        views that could join them.
    samples : int
        Images and views drawn in all passes.
    samples_per_s, seconds : float
        Of the passes: reading, first weights, steps and validations.
    loss : float
        Mean since the log line before the last.
    masked, held_out : int
        Images of classes left out because their features are bad, and images held out for validation.
    validation_lr1 : float or None
        LR@1 in percent of the kept weights on the held-out images; slightly optimistic, since it chose them.
    kept_step : int
        Step of the kept weights.
    classes : int
        Classes of the groups trained.
    projection : str
        "trained", or "frozen" where only some groups were trained.
    residency : str
        Where the features waited, and why there.
    resumed_step : int
        Step of the checkpoint that the run resumed from; 0 without one.
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
    """What one pass over the data did, in plain numbers that a checkpoint can hold."""

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
        source: FeatureSource,
    ) -> PassRecord:
        """Return the record of a finished pass in which `drawn` samples of each class were drawn."""
        held_out = len(validation)
        return cls(
            steps=state.step,
            samples=int(drawn.sum()),
            drawn={name: int(drawn[classes.bucket == name].sum()) for name in BUCKETS},
            log=state.log,
            images=source.images,
            views=source.views,
            held_out=held_out,
            validation_lr1=validation.kept_percent if held_out else None,
            kept_step=validation.kept_step if held_out else state.step,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> PassRecord:
        """Return the record that `as_dict` described."""
        return cls(**{**fields, "log": [LogLine(**line) for line in fields["log"]]})


@dataclass
class RunCosts:
    """Costs of the passes that this process makes itself, without what a checkpoint brought along."""

    seconds: float = 0.0
    samples: int = 0
    residency: str = ""
    resumed_step: int = 0

    def resume(self, state: LoopState) -> None:
        """Leave out the samples drawn before the checkpoint."""
        self.samples -= int(state.drawn.sum())
        self.resumed_step = max(self.resumed_step, state.step)


def summarise(
    first: PassRecord, final: PassRecord, inputs: TrainInputs, files: Files, costs: RunCosts
) -> TrainResult:
    """Return the numbers of a run from the validated pass and the last one, which may be the same."""
    groups = choose_groups(inputs.groups, files.classes)
    return TrainResult(
        steps=final.steps,
        samples=first.samples + (final.samples if final is not first else 0),
        samples_per_s=costs.samples / max(costs.seconds, 1e-9),
        seconds=costs.seconds,
        loss=final.log[-1].loss if final.log else float("nan"),
        drawn=final.drawn,
        images=final.images,
        masked=int((in_class(files.labels) & ~files.reader.valid).sum()),
        held_out=first.held_out,
        views=final.views,
        validation_lr1=first.validation_lr1,
        kept_step=first.kept_step,
        classes=int(np.isin(files.classes.group, groups).sum()),
        groups=groups,
        projection="trained" if inputs.train_projection else "frozen",
        residency=costs.residency,
        resumed_step=costs.resumed_step,
    )


def record_training(localiser: Localiser, result: TrainResult, inputs: TrainInputs) -> None:
    """Put the lasting facts into the localiser's meta; equal runs give equal files."""
    facts = asdict(result)
    for passing in ("seconds", "samples_per_s", "residency", "resumed_step"):
        del facts[passing]
    if not math.isfinite(facts["loss"]):
        facts["loss"] = None
    localiser.meta["training"] = {**facts, "seed": inputs.seed, "settings": asdict(inputs.config)}
