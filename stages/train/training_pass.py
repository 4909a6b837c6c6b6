"""One pass over the training data: from first weights to the weights that are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from stages.devices import resolve_device
from stages.errors import ConfigError
from stages.files import Progress
from stages.models.localiser.calibration_fit import calibrate
from stages.models.localiser.localiser import Localiser
from stages.train.data.feed import open_feed, schedule_of
from stages.train.data.residency import Residency, choose_residency, step_bytes
from stages.train.data.source import FeatureSource, TrainingSet
from stages.train.exemplars import load_exemplars
from stages.train.init.initialise import initialise
from stages.train.inputs import TrainInputs
from stages.train.log import write_log
from stages.train.loop.checkpoint import Checkpoint, Checkpoints
from stages.train.loop.distributed import Ranks
from stages.train.loop.trainer import LogLine, LoopState, Trainer
from stages.train.loop.validation import Validation
from stages.train.prepare import (
    Files,
    choose_groups,
    load_validation,
    new_localiser,
    open_files,
    open_source,
    split_rows,
)
from stages.train.result import PassRecord, RunCosts
from stages.train.resume import identity_of_run, restore, snapshot

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TrainingRun:
    """What both passes of a run share: inputs, opened files, rows, processes and checkpoints."""

    inputs: TrainInputs
    files: Files
    groups: tuple[int, ...]
    rows: Mask
    holdout: Mask
    device: torch.device
    ranks: Ranks
    checkpoints: Checkpoints
    progress: Progress | None
    report: Callable[[LogLine], None] | None
    costs: RunCosts = field(default_factory=RunCosts)

    @classmethod
    def open(
        cls, inputs: TrainInputs, progress: Progress | None, report: Callable[[LogLine], None] | None
    ) -> TrainingRun:
        """Open the files, split their rows and look for checkpoints.

        Raises
        ------
        ConfigError
            If several processes are to take turns, or a group or the device does not exist.
        """
        config, files, ranks = inputs.config, open_files(inputs), Ranks.current()
        groups = choose_groups(inputs.groups, files.classes)
        rows, holdout = split_rows(config, files, groups, inputs.seed)
        device = torch.device(resolve_device(inputs.device))
        if ranks.count > 1 and config.schedule != "joint":
            raise ConfigError("several processes train together only with train.schedule: joint")
        identity = identity_of_run(inputs, files, groups, holdout, ranks.count)
        checkpoints = Checkpoints(inputs.checkpoints, identity, config.checkpoint_s, ranks)
        return cls(inputs, files, groups, rows, holdout, device, ranks, checkpoints, progress, report)


@dataclass(frozen=True)
class PassPlan:
    """What a pass does.

    Attributes
    ----------
    name : {"first", "refit"}
        Names its checkpoints.
    rows, holdout : ndarray of bool, shape (rows,)
        Manifest rows to train on and to validate on.
    steps : int, optional
        By default as configured.
    first : PassRecord, optional
        The finished first pass, which the second one's checkpoints carry along.
    """

    name: Literal["first", "refit"]
    rows: Mask
    holdout: Mask
    steps: int | None = None
    first: PassRecord | None = None


def finished_first_pass(checkpoint: Checkpoint | None) -> PassRecord | None:
    """Return the record of the first pass if the checkpoint was taken after it, in the second."""
    if checkpoint is None or checkpoint.meta["pass"] != "refit":
        return None
    return PassRecord.from_dict(checkpoint.meta["first"])


def train_pass(
    training: TrainingRun, plan: PassPlan, checkpoint: Checkpoint | None
) -> tuple[Localiser, PassRecord]:
    """Train a new localiser as planned, or go on from a checkpoint; return it and a record of the pass."""
    inputs, files, ranks = training.inputs, training.files, training.ranks
    config, save = inputs.config, training.checkpoints.save

    # Open the features; each process reads only those of its own groups.
    everything = open_source(files, plan.rows)
    schedule = schedule_of(config, everything, files.classes, training.groups)
    groups = ranks.own(schedule.groups)
    source = everything if ranks.count == 1 else everything.of_classes(np.isin(files.classes.group, groups))

    # Start with a new localiser, and with features in memory if they fit.
    localiser, resident = _start(training, plan, source)
    streamed = resident is None
    checkpoint = _of_the_same_draw(checkpoint, ranks, streamed=streamed)
    if checkpoint is None:
        initialise(inputs, localiser, everything, resident if ranks.count == 1 else None, training.groups)
    validation = load_validation(config, files, plan.holdout, training.device)

    # Take the steps, and a checkpoint now and then.
    steps = min(config.max_steps, schedule.steps(config.epochs)) if plan.steps is None else plan.steps
    per_epoch = max(1, schedule.steps(1.0))
    with open_feed(config, source, resident, files.classes, groups, per_epoch, inputs.seed) as feed:
        projection = inputs.train_projection
        trainer = Trainer(localiser, feed, groups, config, train_projection=projection, ranks=ranks)
        if checkpoint is not None:
            restore(checkpoint, trainer, validation)
            training.costs.resume(trainer.state)

        def on_log_line(state: LoopState) -> None:
            _report(training, plan, state)
            if training.checkpoints.due:
                save(*snapshot(plan.name, plan.first, trainer, validation, streamed=streamed))

        state = trainer.run(steps if schedule.groups else 0, validation, training.progress, on_log_line)
    ranks.share(localiser, schedule.groups)

    # Record what was done, and add what answers need beside the weights.
    drawn = ranks.total(state.drawn)
    training.costs.samples += int(drawn.sum())
    record = PassRecord.of(state, drawn, files.classes, validation, everything)
    return localiser, replace(record, calibration=_complete(training, plan, localiser, validation))


def _of_the_same_draw(checkpoint: Checkpoint | None, ranks: Ranks, *, streamed: bool) -> Checkpoint | None:
    """Return the checkpoint, or None if just one of both runs streams, which draws other batches."""
    if checkpoint is None or ranks.agree(float(checkpoint.meta["streamed"] != streamed)):
        return None
    return checkpoint


def _start(
    training: TrainingRun, plan: PassPlan, source: FeatureSource
) -> tuple[Localiser, TrainingSet | None]:
    """Return a new localiser and the features in memory, or None where they are streamed."""
    localiser = new_localiser(training.inputs, training.files).to(training.device)
    residency = _choose_residency(training, plan, localiser, source)
    training.costs.residency = f"{residency.place}: {residency.reason}"
    if residency.place == "stream":
        return localiser, None
    return localiser, source.read([(0, source.reader.rows)], residency.where(training.device))


def _choose_residency(
    training: TrainingRun, plan: PassPlan, localiser: Localiser, source: FeatureSource
) -> Residency:
    """Return where the features wait, given what else must fit on the device."""
    config = training.inputs.config
    weight_bytes = sum(value.nbytes for value in localiser.tensors().values())
    beside_bytes = 0  # next to nothing without a tail
    if localiser.tail is not None:
        beside_bytes = replace(source, rows=plan.holdout, view_reader=None).bytes
        if training.inputs.train_projection:
            beside_bytes += step_bytes(localiser.tail, config.batch_size * (2 if source.views else 1))
    return choose_residency(
        config.residency, source.bytes, weight_bytes, training.device, beside_bytes=beside_bytes
    )


def _report(training: TrainingRun, plan: PassPlan, state: LoopState) -> None:
    """Hand on the newest line of the log; the files on disk show the first pass."""
    log = training.inputs.log
    if plan.name == "first" and log is not None and training.ranks.first:
        write_log(log, state.log)
    if training.report is not None:
        training.report(state.log[-1])


def _complete(
    training: TrainingRun, plan: PassPlan, localiser: Localiser, validation: Validation
) -> dict[str, Any] | None:
    """Give the localiser exemplars; return the calibration fitted on the held-out images, if it is wanted.

    Heads trained alone keep the exemplars at hand.
    """
    inputs = training.inputs
    if not inputs.train_projection:
        return None
    random = np.random.default_rng([inputs.seed, 1 << 21])
    localiser.exemplars = load_exemplars(
        inputs.config, training.files, plan.rows, random, training.device, inputs.elsewhere
    )
    if inputs.fusion is None or not len(validation):
        return None
    radius_m = inputs.config.validation.radius_m
    holdout = (validation.features, validation.positions)
    return calibrate(localiser, *holdout, radius_m=radius_m, fusion=inputs.fusion).to_dict()
