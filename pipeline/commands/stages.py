"""The stages as commands, in the data's way: parse, call, show; no logic."""

from __future__ import annotations

import os

import click

from pipeline import console
from pipeline import metrics_table as scores
from pipeline.commands.context import (
    DEVICE,
    SCHEDULER,
    one_device,
    project_of,
    shards_of,
    source_of,
)
from pipeline.commands.options import GroupSet, ShardRange
from pipeline.project.paths import SPLITS


@click.command()
@click.pass_context
def index(context: click.Context) -> None:
    """Find the images and their positions: a manifest per split."""
    from stages.index.stage import run

    params, paths = project_of(context)
    zone = None
    for split in ("database", "queries"):
        source = source_of(params, paths, split)
        with console.progress(f"index {split}") as progress:
            result = run(
                params.index,
                source=source,
                output=paths.index(split),
                split=split,
                zone=zone,
                progress=progress,
            )
        zone = result.zone or None
        console.facts(f"index {split}: {source}", result.facts())


@click.command()
@click.pass_context
def partition(context: click.Context) -> None:
    """Cut the city into classes and groups, and plan the views of the long tail."""
    from stages.partition.stage import run

    params, paths = project_of(context)
    with console.progress("partition") as progress:
        result = run(
            params.partition,
            manifest=paths.index("database"),
            output=paths.partition,
            seed=params.seeds.views,
            progress=progress,
        )
    console.facts("partition", result.facts())


@click.command()
@click.option("--shards", type=ShardRange(), help="Work shards to do, such as 0-63 (default: all).")
@click.option("--split", "splits", type=click.Choice(SPLITS), multiple=True, help="Default: all three.")
@click.option("--keep", is_flag=True, help="Put features of another recipe aside until that recipe returns.")
@click.option("--replace", is_flag=True, help="Drop features made by another recipe and begin anew.")
@click.option("--repair", is_flag=True, help="Check what is done first and do damaged chunks again.")
@SCHEDULER
@DEVICE
@click.pass_context
def extract(
    context: click.Context,
    shards: tuple[int, ...] | None,
    splits: tuple[str, ...],
    keep: bool,
    replace: bool,
    repair: bool,
    scheduler: str | None,
    device: str,
) -> None:
    """Put images and planned views through the frozen backbone, once; run it again to continue."""
    from pipeline.runners.extract import extract_split, storage_line
    from stages.devices import describe_device, resolve_device

    params, paths = project_of(context)
    chosen, resolved = shards_of(params, shards), resolve_device(device)
    for split in splits or SPLITS:
        console.say(f"extract {split}: {params.extract.backbone} on {describe_device(resolved)}")
        console.say(storage_line(params, paths, split))
        with console.progress(f"extract {split}") as progress:
            result = extract_split(
                params,
                paths,
                split,
                shards=chosen,
                device=resolved,
                replace=replace,
                keep=keep,
                repair=repair,
                scheduler=scheduler,
                progress=progress,
            )
        console.facts(f"extract {split}", result.facts())


@click.command("train-heads")
@click.option(
    "--groups", type=GroupSet(), default="all", show_default=True, help="all, or numbers: 0,3 or 0-2."
)
@click.option(
    "--frozen", is_flag=True, help="Keep projection and tail of the localiser at hand, train heads alone."
)
@SCHEDULER
@DEVICE
@click.pass_context
def train_heads(
    context: click.Context, groups: tuple[int, ...] | None, frozen: bool, scheduler: str | None, device: str
) -> None:
    """Train the projection and the groups' heads from cached features; run it again to continue."""
    from pipeline.runners.train import train
    from stages.devices import describe_device, resolve_device

    params, paths = project_of(context)
    resolved = resolve_device(device)
    if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun starts, the first one speaks
        console.say(f"train-heads: on {describe_device(resolved)}")
    result = train(params, paths, groups=groups, frozen=frozen, device=resolved, scheduler=scheduler)
    if result is not None:
        console.facts("train-heads", result.facts())


@click.command("eval")
@DEVICE
@click.pass_context
def evaluate(context: click.Context, device: str) -> None:
    """Localise the queries and write metrics.json, predictions and the LR@N curve."""
    from pipeline.runners.evaluate import evaluate as run

    params, paths = project_of(context)
    run(params, paths, device=one_device(device))
    scores.show(paths.metrics, whole=True)


@click.command("report")
@click.pass_context
def write_report(context: click.Context) -> None:
    """Write report.html: numbers, map, plots, and photos of the worst failures."""
    from stages.eval.report.stage import run

    params, paths = project_of(context)
    result = run(
        params.report,
        predictions=paths.predictions,
        metrics=paths.metrics,
        recall_curve=paths.curve,
        classes=paths.localiser / "classes.parquet",
        labels=paths.partition / "labels.npy",
        database=paths.index("database"),
        queries=paths.index("queries"),
        output=paths.report,
        plots=paths.plots,
    )
    console.facts("report", result.facts())


COMMANDS = (index, partition, extract, train_heads, evaluate, write_report)
