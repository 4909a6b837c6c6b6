"""Tools around the stages: check a project, pack images, run experiments."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import click

from pipeline import console
from pipeline.commands.context import DEVICE, SCHEDULER, in_project, one_device, project_of
from pipeline.commands.options import SEEDS, SPLIT
from pipeline.project.paths import SPLITS

MOST_BACKBONES = 40  # each takes about a second to describe


@click.command()
@click.option("--weights", is_flag=True, help="Also compare features with those of timm and the authors.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Images/s, to say how long extract takes."
)
@click.option(
    "--images", type=click.IntRange(min=1), help="Plan for so many images and views (default: indexed)."
)
@SCHEDULER
@DEVICE
@in_project
def doctor(
    context: click.Context,
    weights: bool,
    rate: float | None,
    images: int | None,
    scheduler: str | None,
    device: str,
) -> int:
    """Check device, weights, disk, data and stores for problems.

    Run it before a long extraction. Each problem comes with the command or setting that fixes it. The exit
    code is 1 if one of them stops the pipeline. --rate is the speed of all devices together, as `pipeline
    extract` shows it after a minute or `pipeline backbones --measure` for images in memory.
    """
    from pipeline.checks.doctor import Workload, examine

    params, paths = project_of(context)
    blocked = False
    workload = Workload(images or 0, rate or 0.0)
    findings = examine(params, paths, device=device, scheduler=scheduler, workload=workload)
    if weights:
        from pipeline.checks.weights import compare_features

        findings = chain(findings, compare_features(params.extract))
    for finding in findings:
        blocked |= finding.blocks
        console.finding(finding.mark, finding.subject, finding.text, finding.remedy)
    return int(blocked)


@click.command()
@click.option("--search", default="", metavar="TEXT", help="Also list timm models whose name contains TEXT.")
@click.option("--measure", is_flag=True, help="Measure the speed here, in images per second.")
@DEVICE
def backbones(search: str, measure: bool, device: str) -> None:
    """List backbones for extract.backbone.

    Length is that of the default outputs together, at the image size that the backbone was trained on.
    GFLOPs count a multiplication and an addition as two operations. --measure takes images in memory and
    random weights in float32.
    """
    from stages.models.backbones import catalogue

    names = catalogue.matching(search)
    shown = names[:MOST_BACKBONES]
    usable = one_device(device) if measure else ""
    rows = []
    with console.progress("backbones") as progress:
        for number, name in enumerate(shown, start=1):
            facts = catalogue.facts(name)
            known = facts.length > 0
            rows.append((catalogue.measured(facts, usable) if measure and known else facts).row())
            progress(number, len(shown))
    speed = (f"images/s on {usable}",) if measure else ()
    console.table("backbones", ("extract.backbone", "px", "length", "GFLOPs", "weights", *speed), rows)
    if len(names) > len(shown):
        console.line(f"{len(names) - len(shown)} more contain {search!r}: search for more of the name")
    if not search:
        console.line("timm has many more: list them with --search TEXT; docs/guide.md explains each kind")


@click.command()
@click.option("--split", "splits", type=SPLIT, multiple=True, help="Split to verify (default: all).")
@in_project
def verify(context: click.Context, splits: tuple[str, ...]) -> int:
    """Read everything that is stored and look for damage.

    Reads every feature; without --split also manifests, packs, partition and localiser. The exit code is
    1 if something is missing, torn or changed.
    """
    from cache.store import store_exists
    from pipeline.checks.splits import stored_splits
    from pipeline.checks.verify import verify_artifacts, verify_split

    _, paths = project_of(context)
    verdicts = []
    stored = [split for split in stored_splits(paths) if store_exists(paths.features(split))]
    for split in splits or stored or SPLITS[:1]:
        with console.progress(f"verify {split}", unit="chunks") as progress:
            verdicts.append(verify_split(paths, split, progress))
    columns = ("split", "chunks", "missing", "damaged", "bad rows", "verdict")
    console.table("feature stores", columns, (verdict.row() for verdict in verdicts))
    if faults := [row for verdict in verdicts for row in verdict.fault_rows()]:
        console.table("damage", ("split", "chunk", "rows", "array", "fault"), faults)
    damaged = False
    for finding in () if splits else verify_artifacts(paths):
        damaged |= finding.blocks
        console.finding(finding.mark, finding.subject, finding.text, finding.remedy)
    unsound = [verdict for verdict in verdicts if not verdict.sound]
    for verdict in unsound:
        console.line(f"{verdict.split}: run `{verdict.remedy}`")
    return int(damaged or bool(unsound))


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option("--workers", type=click.IntRange(min=1), help="Processes (default: one per processor core).")
@in_project
def pack(context: click.Context, source: Path, output: Path, workers: int | None) -> None:
    """Pack many small image files into a few large ones.

    SOURCE is a folder, a .csv, a .txt list or a .parquet manifest. OUTPUT then holds HDF5 files and
    manifest.parquet: set data.database or data.queries to that manifest.
    """
    from os import cpu_count

    from pipeline.runners.pack import pack as pack_images

    params, _ = project_of(context)
    with console.progress("pack") as progress:
        result = pack_images(params, source, output, workers=workers or cpu_count() or 1, progress=progress)
    console.facts(f"pack {source}: {result.manifest}", result.facts())


@click.command()
@click.option("--seeds", type=SEEDS, default="0-4", show_default=True, help="Training seeds.")
@click.option("--only", "names", multiple=True, metavar="ROW", help="Row to run (default: all).")
@click.option(
    "--localiser",
    type=click.Choice(("classify", "retrieve", "hybrid")),
    default="classify",
    show_default=True,
    help="Localiser whose LR@N the tables show.",
)
@DEVICE
@in_project
def experiments(
    context: click.Context, seeds: tuple[int, ...], names: tuple[str, ...], localiser: str, device: str
) -> int:
    """Train and compare the rows of experiments.yaml.

    Run it again to continue. Several of these commands may run at once and share the work. The exit code
    is 1 if a row failed or another command still runs part of it.
    """
    from cache.storage.folder_lock import locked
    from pipeline.commands.stages import index
    from pipeline.experiments.rows import chosen_rows, read_plan, require_localiser
    from pipeline.experiments.run import FAILED, HELD, run_rows
    from pipeline.experiments.statistics import Comparison
    from pipeline.experiments.tables import shortfalls, tables, write

    params, paths = project_of(context)
    plan = read_plan(paths.project)
    rows = chosen_rows(paths.project, plan, names, params)
    require_localiser(rows, localiser)
    usable = one_device(device)
    paths.experiments.mkdir(parents=True, exist_ok=True)
    with locked(paths.experiments):  # another of these commands may be indexing
        if not paths.index("queries").exists():
            context.invoke(index)
    outcomes = run_rows(rows, seeds, device=usable, localiser=localiser, report=console.line)
    comparison = Comparison(outcomes, plan, localiser)
    for table in tables(comparison):
        console.table(table.title, table.columns, table.rows)
        console.line("")
    for line in shortfalls(outcomes):
        console.line(line)
    write(paths.experiments, comparison)
    console.line(f"all numbers: {paths.experiments}/experiments.json, as Markdown: table.md")
    return int(any(outcome.shortfall in (FAILED, HELD) for outcome in outcomes.values()))


COMMANDS = (doctor, backbones, verify, pack)
