"""The whole training run: files in, localiser out."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from stages.train.config import TrainConfig
from stages.train.log import write_log
from stages.train.loop import Progress, Trainer
from stages.train.prepare import (
    Files,
    Groups,
    begin_localiser,
    choose_device,
    choose_groups,
    initialise,
    load_training_set,
    load_validation,
    make_samplers,
    open_files,
    split_rows,
)
from stages.train.result import Trained, TrainResult, record, summarise

__all__ = ["TrainResult", "run"]


def run(
    config: TrainConfig,
    *,
    partition: Path,
    features: Path,
    views: Path | None,
    manifest: Path,
    output: Path,
    groups: Groups = "all",
    seed: int,
    device: str = "cpu",
    log: Path | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a localiser and write it to `output`.

    Parameters
    ----------
    config : TrainConfig
        Hyper-parameters.
    partition : Path
        Folder of classes, labels and view plan.
    features, views : Path
        Feature stores of the database and of the planned views.
    manifest : Path
        The database's manifest: positions and dates for the validation.
    output : Path
        The localiser's folder.
    groups : "all" or tuple of int
        Heads to train. A part of them is trained against the projection of
        the localiser that `output` already holds, which stays as it is.
    seed : int
        Same seed, same tensors (on the CPU to the bit).
    device : str
        "auto", "cpu", "cuda", "cuda:1", ...
    log : Path, optional
        CSV of step, loss, samples_per_s and validation_lr1.
    progress : callable, optional
        Called with (done, total) steps.

    Raises
    ------
    StoreError
        If features or planned views are not extracted yet.
    InputError
        If the files belong to different partitions or there is nothing to train.
    ConfigError
        If a setting does not fit the data, or only some groups are asked for without a localiser that fits.
    """
    files = open_files(config, partition, features, manifest)
    job = _Job(config, files, partition, views, output, groups, seed, choose_device(device), progress)
    rows, held = split_rows(config, files, job.chosen, seed)
    begun = time.perf_counter()
    final = first = job.train(rows, held)
    if config.validation.refit and held.any():
        first = first.without_weights()
        final = job.train(rows | held, held & False, first.validation.kept_step)
    seconds = time.perf_counter() - begun
    masked = int(((files.labels >= 0) & ~files.reader.valid).sum())
    result = summarise(final, first, groups=job.chosen, seconds=seconds, masked=masked, whole=groups == "all")
    record(final.localiser, config, result, seed)
    final.localiser.save(output)
    if log is not None:
        write_log(log, first.loop.log)
    return result


@dataclass(frozen=True)
class _Job:
    """What both passes share: the first chooses the number of steps, the second uses all images."""

    config: TrainConfig
    files: Files
    partition: Path
    views: Path | None
    output: Path
    groups: Groups
    seed: int
    device: torch.device
    progress: Progress | None

    @property
    def chosen(self) -> tuple[int, ...]:
        return choose_groups(self.groups, self.files.classes)

    def train(
        self, rows: npt.NDArray[np.bool_], held: npt.NDArray[np.bool_], steps: int | None = None
    ) -> Trained:
        """Train on some rows of the manifest and validate on others."""
        config, files, whole = self.config, self.files, self.groups == "all"
        localiser = begin_localiser(config, files, self.output, self.groups, self.seed).to(self.device)
        data = load_training_set(config, files, self.partition, self.views, rows, self.device)
        validation = load_validation(config, files, held, self.device)
        initialise(config, localiser, data, self.chosen, whole=whole)
        samplers = make_samplers(config, files.classes, data, self.chosen, self.seed)
        trainer = Trainer(localiser, data, samplers, config, train_projection=whole)
        if steps is None:
            steps = min(config.max_steps, math.ceil(config.epochs * len(data.classes) / config.batch_size))
        loop = trainer.run(steps if samplers else 0, validation, self.progress)
        return Trained(localiser, loop, validation, len(data.classes), len(data.view_images))
