"""The training stage: features and classes in, localiser out.

A run makes one or two passes over the data. The first trains without the held-out images and keeps the
weights that place these best. The second (`train.validation.refit`) starts again on all images, for as many
steps as the first one kept: a small city gains more from a tenth more photos than from a second opinion.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from stages.files import Progress
from stages.models.localiser.calibration_fit import drop_calibration, store_calibration
from stages.models.localiser.localiser import Localiser
from stages.train.exemplars import fit_familiarity_threshold
from stages.train.inputs import TrainInputs
from stages.train.log import write_log
from stages.train.loop.trainer import LogLine
from stages.train.result import PassRecord, TrainResult, record_training, summarise
from stages.train.training_pass import PassPlan, TrainingRun, finished_first_pass, train_pass

__all__ = ["TrainInputs", "TrainResult", "run"]


def run(
    inputs: TrainInputs,
    *,
    progress: Progress | None = None,
    report: Callable[[LogLine], None] | None = None,
) -> TrainResult:
    """Train a localiser and write it to `inputs.output`.

    Started by `torchrun` (inside `distributed.joined`), each process trains some of the groups and the first
    one writes.

    Parameters
    ----------
    inputs : TrainInputs
        Settings and files.
    progress : callable, optional
        Called with (done, total) steps.
    report : callable, optional
        Called with each line of the log.

    Raises
    ------
    StoreError
        If features or planned views are not extracted yet.
    InputError
        If the files belong to different partitions or there is nothing to train.
    ConfigError
        If a setting does not fit the data, or only some groups are asked for without a localiser that fits.
    WeightsError
        If a tail is to be trained and the backbone's weights are missing or differ from those of the
        features.
    """
    training = TrainingRun.open(inputs, progress, report)
    start = time.perf_counter()
    localiser, first, final = _train(training)
    training.costs.seconds = time.perf_counter() - start
    result = summarise(first, final, inputs, training.files, training.costs)
    _write(training, localiser, first, result)
    return result


def _train(training: TrainingRun) -> tuple[Localiser, PassRecord, PassRecord]:
    """Make both passes; return the localiser and the records of the validated and of the last pass."""
    everything, nothing = training.rows | training.holdout, training.holdout & False
    refit = training.inputs.config.validation.refit and training.holdout.any()
    checkpoint = training.checkpoints.latest()

    # First pass: train without the held-out images and keep the weights that place these best.
    first = finished_first_pass(checkpoint)
    if first is None:
        plan = PassPlan("first", training.rows, training.holdout)
        localiser, first = train_pass(training, plan, checkpoint)
        if not refit:
            return localiser, first, first
        checkpoint = None
        del localiser  # its memory is needed again

    # Second pass: start again on all images, for as many steps as the first pass kept.
    plan = PassPlan("refit", everything, nothing, steps=first.kept_step, first=first)
    localiser, final = train_pass(training, plan, checkpoint)
    return localiser, first, final


def _write(training: TrainingRun, localiser: Localiser, first: PassRecord, result: TrainResult) -> None:
    """Write the localiser with its facts, and the validated pass's log; delete the checkpoints."""
    inputs = training.inputs
    record_training(localiser, result, inputs)
    if not inputs.train_projection:
        drop_calibration(localiser, training.groups)
    elif inputs.fusion is not None:
        radius_m = inputs.config.validation.radius_m
        store_calibration(localiser, first.calibration, radius_m=radius_m, fusion=inputs.fusion)
        localiser.meta["least_familiarity"] = fit_familiarity_threshold(
            localiser, training.files, training.rows | training.holdout, inputs.fusion.abstain_cost
        )
    if training.ranks.first:
        localiser.save(inputs.output)
        if inputs.log is not None:
            write_log(inputs.log, first.log)
    training.checkpoints.clear()
