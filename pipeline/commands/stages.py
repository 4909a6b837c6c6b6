"""The stages as commands, in the order of the data: parse arguments, call one stage, print a table."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pipeline import console, metrics_table
from pipeline.commands.context import (
    DEVICE,
    SCHEDULER,
    in_project,
    one_at_a_time,
    one_device,
    project_of,
    shards_of,
    sources_of,
)
from pipeline.commands.options import GROUPS, SHARDS, SPLIT, STREETS, TILES
from pipeline.project.paths import SPLITS


@click.command()
@one_at_a_time
def index(context: click.Context) -> None:
    """Find the images and their positions."""
    from stages.errors import InputError
    from stages.index.manifest import Manifest
    from stages.index.overlap import shared_images
    from stages.index.stage import IndexInputs, run

    params, paths = project_of(context)
    if params.extract.imported is not None:
        from pipeline.runners.imported import restore_index

        console.facts("index", restore_index(params, paths))
        return
    zone = None
    for split in ("database", "queries"):
        sources = sources_of(params, paths, split)
        shown = ", ".join(map(str, sources))
        with console.progress(f"index {split}") as progress:
            inputs = IndexInputs(params.index, sources, paths.index(split), split, zone)
            result = run(inputs, progress=progress)
        zone = result.zone
        console.facts(f"index {split}: {shown}", result.facts())
        if result.absent and params.index.on_error == "stop":
            raise InputError(
                f"{result.absent[0]} does not exist: correct the paths in {shown}, "
                "or set index.on_error to skip"
            )
    count, keys = shared_images(Manifest.open(paths.index("database")), Manifest.open(paths.index("queries")))
    if count:
        console.line(
            f"{count:,} queries are also in the database, such as {', '.join(keys)}: retrieval finds them"
        )


@click.command()
@one_at_a_time
def partition(context: click.Context) -> None:
    """Divide the city into classes and groups, and plan views.

    Images of classes with few images get planned views: augmented copies, made by `extract`.
    """
    from pipeline.checks.bounds import bounds
    from stages.partition.stage import PartitionInputs, run

    params, paths = project_of(context)
    with console.progress("partition") as progress:
        inputs = PartitionInputs(
            params.partition, paths.index("database"), paths.partition, params.seeds.views
        )
        result = run(inputs, progress=progress)
    console.facts("partition", result.facts())
    for finding in bounds(paths, params.eval.radius_m):
        console.finding(finding.mark, finding.subject, finding.text, finding.remedy)


@click.command()
@click.option("--shards", type=SHARDS, help="Shards to extract, such as 0-63 (default: all).")
@click.option("--split", "splits", type=SPLIT, multiple=True, help="Split to extract (default: all three).")
@click.option(
    "--keep", "others", flag_value="keep", help="Set features made with other settings aside, for later use."
)
@click.option("--replace", "others", flag_value="replace", help="Delete features made with other settings.")
@click.option("--repair", is_flag=True, help="Check finished chunks first and redo damaged ones.")
@SCHEDULER
@DEVICE
@in_project
def extract(
    context: click.Context,
    shards: tuple[int, ...] | None,
    splits: tuple[str, ...],
    others: str | None,
    repair: bool,
    scheduler: str | None,
    device: str,
) -> None:
    """Compute the features of images and planned views.

    Each passes through the frozen backbone once. Run it again to continue after an interruption.
    """
    from pipeline.runners.extract import ExtractOptions, crop_splits, extract_split, storage_line
    from pipeline.runners.imported import keep_imported

    params, paths = project_of(context)
    options = ExtractOptions(
        device,
        shards_of(params, shards),
        replace=others == "replace",
        keep=others == "keep",
        repair=repair,
        scheduler=scheduler,
    )
    chosen = list(splits or SPLITS)
    for split in chosen + (crop_splits(params) if "queries" in chosen else []):
        if params.extract.imported is not None:
            console.line(keep_imported(params, paths, split))
            continue
        console.line(storage_line(params, paths, split))
        with console.progress(f"extract {split}") as progress:
            result = extract_split(params, paths, split, options, progress=progress, report=console.line)
        console.facts(f"extract {split}", result.facts())


@click.command("train-heads")
@click.option(
    "--groups",
    type=GROUPS,
    default="all",
    show_default=True,
    help="Groups to train: all, 0,3 or 0-2.",
)
@click.option(
    "--frozen",
    is_flag=True,
    help="Train heads only; keep the projection and trained blocks of the existing localiser.",
)
@SCHEDULER
@DEVICE
@one_at_a_time
def train_heads(
    context: click.Context, groups: tuple[int, ...] | None, frozen: bool, scheduler: str | None, device: str
) -> None:
    """Train the projection and the heads from cached features.

    Run it again to continue after an interruption.
    """
    from pipeline.runners.train import train
    from stages.devices import describe_device

    params, paths = project_of(context)
    resolved = one_device(device)
    if os.environ.get("RANK", "0") == "0":  # torchrun starts several processes; only the first one prints
        console.line(f"train-heads: on {describe_device(resolved)}")
    result = train(params, paths, groups=groups, frozen=frozen, device=resolved, scheduler=scheduler)
    if result is not None:
        console.facts("train-heads", result.facts())


@click.command("eval")
@DEVICE
@one_at_a_time
def evaluate(context: click.Context, device: str) -> None:
    """Localise the queries and measure how many are right.

    Writes metrics.json, details.json, predictions.parquet and the LR@N curve.
    """
    from pipeline.runners.evaluate import evaluate as run

    params, paths = project_of(context)
    run(params, paths, device=one_device(device))
    metrics_table.show(paths, localisers_only=False)


@click.command("report")
@STREETS
@TILES
@one_at_a_time
def write_report(context: click.Context, streets: Path | None, tiles: str | None) -> None:
    """Write report.html: numbers, map, plots and worst failures."""
    from stages.eval.report.base_map import BaseMap
    from stages.eval.report.stage import ReportInputs, run

    params, paths = project_of(context)
    inputs = ReportInputs(
        config=params.report,
        predictions=paths.predictions,
        details=paths.details,
        recall_curve=paths.curve,
        classes=paths.localiser / "classes.parquet",
        labels=paths.partition / "labels.npy",
        database=paths.index("database"),
        queries=paths.index("queries"),
        output=paths.report,
        plots=paths.plots,
        base=BaseMap(streets, tiles),
    )
    result = run(inputs)
    console.facts("report", result.facts())
    console.link(result.page)


COMMANDS = (index, partition, extract, train_heads, evaluate, write_report)
