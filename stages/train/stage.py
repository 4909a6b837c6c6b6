"""The whole training run: files in, localiser out."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from cache.storage.paths import StoragePath
from stages.devices import resolve_device
from stages.files import Progress
from stages.models.localiser.cell_fusion import FusionConfig
from stages.models.localiser.predict import drop_calibration, note
from stages.partition.classes import in_class
from stages.train.config import TrainConfig
from stages.train.log import write_log
from stages.train.loop.distributed import Ranks
from stages.train.loop.trainer import LogLine
from stages.train.prepare import Groups, choose_groups, open_files, split_rows
from stages.train.result import TrainResult, record, summarise
from stages.train.run import Run

__all__ = ["TrainResult", "run"]


def run(
    config: TrainConfig,
    *,
    partition: Path,
    features: StoragePath,
    views: StoragePath | None,
    manifest: Path,
    output: Path,
    base: Path | None = None,
    groups: Groups = "all",
    seed: int,
    device: str = "cpu",
    log: Path | None = None,
    checkpoints: Path | None = None,
    fusion: FusionConfig | None = None,
    weights: str | None = None,
    progress: Progress | None = None,
    report: Callable[[LogLine], None] | None = None,
) -> TrainResult:
    """Train a localiser and write it to `output`.

    Started by `torchrun` (inside `ranks.joined`), each process trains some of
    the groups and the first one writes.

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
    base : Path, optional
        The localiser that lends its tail, projection and other heads; by default `output`.
    groups : "all" or tuple of int
        Heads to train. Where they are named, they are trained against the
        projection and the tail of `base`, which stay as they are.
    seed : int
        Same seed, same tensors (on the CPU to the bit).
    device : str
        "auto", "cpu", "cuda", "cuda:1", ...
    log : Path, optional
        Folder of loss, samples_per_s and validation_lr1 over the steps, written anew with each line.
    checkpoints : Path, optional
        Folder of checkpoints; a run that finds its own there goes on from it.
    fusion : FusionConfig, optional
        How answers are made of scores; given, confidences are calibrated on the held-out images.
    weights : str, optional
        With `config.tail`: where the tail's first weights come from, as `extract.weights`; by default
        from where the features' recipe says.
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
        If a tail is to be trained and the backbone's weights cannot be had.
    """
    files = open_files(config, partition, features, manifest)
    chosen, ranks = choose_groups(groups, files.classes), Ranks.current()
    rows, held = split_rows(config, files, chosen, seed)

    def say(name: str, lines: list[LogLine]) -> None:
        if name == "first" and log is not None and ranks.first:
            write_log(log, lines)
        if report is not None:
            report(lines[-1])

    job = Run(
        config,
        files,
        partition,
        views,
        base or output,
        groups,
        seed,
        torch.device(resolve_device(device)),
        ranks,
        checkpoints,
        progress,
        say,
        fusion,
        weights,
    )
    begun = time.perf_counter()
    localiser, final, first = job.train(rows, held)
    result = summarise(
        final,
        first,
        files.classes,
        groups=chosen,
        seconds=time.perf_counter() - begun,
        samples=job.samples,
        masked=int((in_class(files.labels) & ~files.reader.valid).sum()),
        whole=groups == "all",
        residency=job.residency,
        resumed_step=job.resumed_step,
    )
    record(localiser, config, result, seed)
    if fusion is not None and groups == "all":
        note(localiser, first.calibration, radius_m=config.validation.radius_m, fusion=fusion)
    if groups != "all":
        drop_calibration(localiser, chosen)
    if ranks.first:
        localiser.save(output)
    if log is not None and ranks.first:
        write_log(log, first.log)
    job.checkpoints.clear()
    return result
