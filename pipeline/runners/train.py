"""Training as asked for: here, in the processes of `torchrun`, or head by head on a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import progress as bars

from pipeline import console
from pipeline.project.params import Params
from pipeline.project.paths import Paths
from pipeline.runners.dask_cluster import connect, map_shards
from stages.errors import ConfigError, InputError

if TYPE_CHECKING:
    from stages.files import Progress
    from stages.train.inputs import TrainInputs
    from stages.train.loop.trainer import LogLine
    from stages.train.result import TrainResult


@dataclass(frozen=True)
class TrainingProgress:
    """What moves the bar: `progress(done, total)` and `report(line of the log)`."""

    progress: Progress
    report: Callable[[LogLine], None]


@contextmanager
def training_bar(*, shown: bool) -> Iterator[TrainingProgress]:
    """Yield a bar that shows loss, samples/s and the last LR@1; silent unless `shown`, on a terminal."""
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[numbers]}"),
        bars.TimeRemainingColumn(),
    )
    validated, silent = "", not (shown and console.err.is_terminal)

    def report(line: LogLine) -> None:
        nonlocal validated
        if line.validation_lr1 is not None:
            validated = f"  held-out LR@1 {line.validation_lr1:.1f}"
        numbers = f"loss {line.loss:.3g}  {line.samples_per_s:,.0f} samples/s{validated}"
        bar.update(task, numbers=numbers)

    with bars.Progress(*columns, console=console.err, transient=True, disable=silent) as bar:
        task = bar.add_task("train", total=None, numbers="")
        yield TrainingProgress(lambda done, total: bar.update(task, completed=done, total=total), report)


def train(
    params: Params,
    paths: Paths,
    *,
    groups: tuple[int, ...] | None,
    frozen: bool,
    device: str,
    scheduler: str | None,
) -> TrainResult | None:
    """Train what was asked for; the result, or None in a `torchrun` process that does not report.

    Parameters
    ----------
    params : Params
        Settings.
    paths : Paths
        Files.
    groups : tuple of int or None
        Heads to train against the projection at hand; None for all, with the projection unless `frozen`.
    frozen : bool
        Keep the projection of the localiser at hand. Of its heads, those whose group has nothing to learn
        stay too.
    device : str
        "cpu", "cuda", ...
    scheduler : str or None
        Dask cluster that trains the heads, each on its own.

    Raises
    ------
    ConfigError
        If a cluster is asked to train the projection too, or there is no such group or no localiser at hand.
    InputError
        If heads alone are asked for and none of their groups has anything to learn.
    """
    from stages.train.loop.distributed import Ranks, joined

    heads_alone = frozen or groups is not None
    if scheduler is not None and not heads_alone:
        raise ConfigError("--scheduler trains heads one by one: add --frozen, or --groups with some of them")
    if heads_alone:
        groups = _learnable(params, paths, groups)
    if scheduler is not None and groups is not None:
        return _train_on_cluster(params, paths, groups, device, scheduler)
    with joined(device) as mine, training_bar(shown=Ranks.current().first) as bar:
        result = _train_here(params, paths, groups, mine, bar)
        return result if Ranks.current().first else None


def _learnable(params: Params, paths: Paths, groups: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return those of the groups, all for None, where images of two classes or more can be told apart."""
    from stages.train.prepare import choose_groups, open_files, require_base

    require_base(paths.localiser)
    files = open_files(_inputs(params, paths, output=paths.localiser))
    asked = choose_groups("all" if groups is None else groups, files.classes)
    labels = files.labels[files.reader.valid]
    seen = np.bincount(labels[labels >= 0], minlength=len(files.classes)) > 0
    found = tuple(group for group in asked if seen[files.classes.group_slice(group)].sum() > 1)
    if not found:
        which = "any group" if groups is None else f"--groups {','.join(map(str, asked))}"
        raise InputError(
            f"there is nothing to learn in {which}: expected images of two classes or more in a group; "
            "name other groups, lower partition.min_images_per_class, or see `pipeline status --bad`"
        )
    return found


def _inputs(params: Params, paths: Paths, **more: Any) -> TrainInputs:
    """Return the inputs of a training with this project's settings and files."""
    from stages.train.inputs import TrainInputs

    return TrainInputs(
        config=params.train,
        partition=paths.partition,
        features=paths.features("database"),
        views=paths.features("views") if params.train.augment_views else None,
        manifest=paths.index("database"),
        seed=params.seeds.train,
        weights=params.extract.weights,
        **more,
    )


def _train_here(
    params: Params, paths: Paths, groups: tuple[int, ...] | None, device: str, bar: TrainingProgress
) -> TrainResult:
    from stages.train.stage import run

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
    return run(inputs, progress=bar.progress, report=bar.report)


def train_head(params: Params, paths: Paths, device: str, group: int) -> TrainResult:
    """Train one head beside the current localiser into a folder of its own; the work of a Dask worker."""
    from stages.train.stage import run

    output, base = paths.head(group), paths.localiser
    return run(_inputs(params, paths, output=output, base=base, groups=(group,), device=device))


def _train_on_cluster(
    params: Params, paths: Paths, groups: tuple[int, ...], device: str, scheduler: str
) -> TrainResult:
    from stages.train.merge import merge_heads

    with connect(scheduler) as client, console.progress("train heads") as progress:
        work = partial(train_head, params, paths, device)
        results = []
        for _, result in map_shards(work, groups, client):
            results.append(result)
            progress(len(results), len(groups))
    return merge_heads(paths.localiser, {group: paths.head(group) for group in groups}, results)
