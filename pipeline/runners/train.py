"""Train the project's localiser: here, in the processes of `torchrun`, or head by head on a Dask cluster."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import console
from pipeline.project.params import Params
from pipeline.project.paths import Paths
from pipeline.runners.dask_cluster import connect, map_shards
from stages.errors import ConfigError, InputError

if TYPE_CHECKING:
    from stages.train.inputs import TrainInputs
    from stages.train.loop.trainer import LogLine
    from stages.train.result import TrainResult


def train(
    params: Params,
    paths: Paths,
    *,
    groups: tuple[int, ...] | None,
    frozen: bool,
    device: str,
    scheduler: str | None,
) -> TrainResult | None:
    """Return the result of the training; None in all but the first process of `torchrun`.

    Parameters
    ----------
    params : Params
        Settings.
    paths : Paths
        Files.
    groups : tuple of int or None
        Groups whose heads are trained with the projection of the existing localiser; None for all heads,
        with the projection unless `frozen`.
    frozen : bool
        Keep the projection of the existing localiser, and the heads of groups without training data.
    device : str
        "cpu", "cuda", ...
    scheduler : str or None
        Dask cluster whose workers train one head each.

    Raises
    ------
    ConfigError
        If a cluster would have to train the projection, a group does not exist, or heads alone are to be
        trained and there is no localiser.
    InputError
        If heads alone are to be trained and no group has training data.
    """
    from stages.train.loop.distributed import Ranks, joined

    heads_only = frozen or groups is not None
    if scheduler is not None and not heads_only:
        raise ConfigError("--scheduler trains heads one by one: add --frozen, or --groups with some of them")
    if heads_only:
        groups = _learnable(params, paths, groups)
    if scheduler is not None and groups is not None:
        return _train_on_cluster(params, paths, groups, device, scheduler)
    with joined(device) as own_device:
        first = Ranks.current().first
        with console.progress("train", unit="steps", hidden=not first) as bar:
            result = _train_here(params, paths, groups, own_device, bar)
        return result if first else None


def _learnable(params: Params, paths: Paths, groups: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return those of the groups (None: all) that have images of at least two classes."""
    from stages.train.prepare import choose_groups, open_files, require_base

    require_base(paths.localiser)
    files = open_files(_inputs(params, paths, output=paths.localiser))
    chosen = choose_groups("all" if groups is None else groups, files.classes)
    labels = files.labels[files.reader.valid]
    seen = np.bincount(labels[labels >= 0], minlength=len(files.classes)) > 0
    learnable = tuple(group for group in chosen if seen[files.classes.group_slice(group)].sum() > 1)
    if not learnable:
        which = "any group" if groups is None else f"--groups {','.join(map(str, chosen))}"
        raise InputError(
            f"there is nothing to learn in {which}: expected images of two classes or more in a group; "
            "choose other groups, lower partition.min_images_per_class, or see `pipeline status --bad`"
        )
    return learnable


def _inputs(params: Params, paths: Paths, **options: Any) -> TrainInputs:
    """Return the inputs of a training with this project's settings and files."""
    from stages.train.inputs import TrainInputs

    return TrainInputs(
        config=params.train,
        partition=paths.partition,
        features=paths.features("database"),
        views=paths.features("views") if params.train.augment_views else None,
        manifest=paths.index("database"),
        elsewhere=paths.elsewhere,
        seed=params.seeds.train,
        weights=params.extract.weights,
        **options,
    )


def _train_here(
    params: Params, paths: Paths, groups: tuple[int, ...] | None, device: str, bar: console.ProgressBar
) -> TrainResult:
    from stages.train.stage import run

    validation = ""

    def report(line: LogLine) -> None:
        nonlocal validation
        if line.validation_lr1 is not None:
            validation = f", held-out LR@1 {line.validation_lr1:.1f}"
        bar.note(f"loss {line.loss:.3g}, {line.samples_per_s:,.0f} samples/s{validation}")

    inputs = _inputs(
        params,
        paths,
        output=paths.localiser,
        fusion=params.eval.fusion,
        groups="all" if groups is None else groups,
        device=device,
        log=paths.training_log,
        checkpoints=paths.checkpoints,
    )
    return run(inputs, progress=bar, report=report)


def train_head(params: Params, paths: Paths, device: str, group: int) -> TrainResult:
    """Train one head beside the current localiser into a folder of its own; the work of a Dask worker."""
    from stages.train.stage import run

    output, base = paths.head(group), paths.localiser
    return run(_inputs(params, paths, output=output, base=base, groups=(group,), device=device))


def _train_on_cluster(
    params: Params, paths: Paths, groups: tuple[int, ...], device: str, scheduler: str
) -> TrainResult:
    from stages.train.merge import merge_heads

    with connect(scheduler) as client, console.progress("train heads", unit="heads") as progress:
        work = partial(train_head, params, paths, device)
        results = []
        for _, result in map_shards(work, groups, client):
            results.append(result)
            progress(len(results), len(groups))
    return merge_heads(paths.localiser, {group: paths.head(group) for group in groups}, results)
