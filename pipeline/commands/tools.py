"""What a person does around the stages: begin a project, locate photos, look after stores; no logic."""

from __future__ import annotations

from pathlib import Path

import click

from cache.storage.folder_lock import locked
from pipeline import console
from pipeline import metrics_table as scores
from pipeline.commands.context import DEVICE, SCHEDULER, one_device, project_of
from pipeline.commands.options import SeedRange
from pipeline.project.paths import SPLITS, Paths


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="A parameter to change.")
def init(folder: Path, settings: tuple[str, ...]) -> None:
    """Lay out FOLDER as a project: params.yaml, dvc.yaml, Git and DVC."""
    from pipeline.project.init import make_project, parse_setting

    make_project(folder, dict(parse_setting(setting) for setting in settings))
    console.say(f"{folder} is ready: look into its params.yaml, then run `dvc repro` there")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("demo"))
def demo(folder: Path) -> None:
    """Run the whole pipeline in FOLDER (default: demo) on the city that the project draws."""
    from pipeline.project import demo as demonstration

    demonstration.run(folder, say=console.say)
    scores.show(Paths(folder, "").metrics, whole=False)


@click.command()
@click.option("--seeds", type=SeedRange(), default="0-4", show_default=True, help="Training seeds.")
@click.option("--only", "names", multiple=True, metavar="ROW", help="Rows to run (default: all).")
@click.option(
    "--localiser",
    type=click.Choice(("classify", "retrieve", "hybrid")),
    default="classify",
    show_default=True,
    help="Whose LR@N the tables show.",
)
@DEVICE
@click.pass_context
def experiments(
    context: click.Context, seeds: tuple[int, ...], names: tuple[str, ...], localiser: str, device: str
) -> int:
    """Train and evaluate the rows of experiments.yaml side by side; run it again to continue.

    Several of these commands share the work. Exit code 1 if a row failed, or another command is still at it.
    """
    from pipeline.commands.stages import index
    from pipeline.experiments import tables as comparison_tables
    from pipeline.experiments.rows import chosen_rows, read_plan, require_localiser
    from pipeline.experiments.run import FAILED, HELD, run_rows

    params, paths = project_of(context)
    plan = read_plan(paths.project)
    rows = chosen_rows(paths.project, plan, names, params)
    require_localiser(rows, localiser)
    usable = one_device(device)
    paths.experiments.mkdir(parents=True, exist_ok=True)
    with locked(paths.experiments):  # another of these commands may be at the index
        if not paths.index("queries").exists():
            context.invoke(index)
    found = run_rows(rows, seeds, device=usable, localiser=localiser, say=console.say)
    for table in comparison_tables.tables(found, plan, localiser):
        console.table(table.title, table.columns, table.rows)
        console.say("")
    for line in comparison_tables.shortfalls(found):
        console.say(line)
    comparison_tables.write(paths.experiments, found, plan, localiser)
    console.say(f"all numbers: {paths.experiments}/experiments.json, as Markdown: table.md")
    return int(any(outcome.lacking in (FAILED, HELD) for outcome in found.values()))


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PHOTO...")
@click.option("--model", type=click.Path(path_type=Path, file_okay=False), help="The localiser's folder.")
@click.option(
    "--weights", type=click.Path(path_type=Path, dir_okay=False), help="The backbone's weights, if a file."
)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="How many places to give.")
@click.option("--map", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML map.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@DEVICE
@click.pass_context
def locate(
    context: click.Context,
    photos: tuple[Path, ...],
    model: Path | None,
    weights: Path | None,
    top: int,
    page: Path | None,
    as_json: bool,
    device: str,
) -> int:
    """Say where photos were taken: files, or folders of them. Exit code 1 if any is unreadable."""
    from pipeline.locate import output as located
    from pipeline.locate.localiser import PhotoLocaliser, photos_of
    from stages.images.read import UnreadableImage

    folder = model or Paths(context.obj, "").localiser
    found = photos_of(photos)
    localiser = PhotoLocaliser.load(folder, weights=weights, device=one_device(device))
    outcomes = []
    for outcome in localiser.locate_all(found, top=top):
        outcomes.append(outcome)
        if not as_json:
            located.show(outcome)
    if as_json:
        click.echo(located.as_json(outcomes))
    if page is not None:
        located.write_map(page, localiser, outcomes)
    return int(any(isinstance(outcome, UnreadableImage) for outcome in outcomes))


@click.command()
@click.option("--bad", is_flag=True, help="List the images that could not be read, with the reason.")
@click.pass_context
def status(context: click.Context, bad: bool) -> None:
    """Show what is done, missing and bad, how large it is and how fast it went."""
    from pipeline.checks import status as report

    _, paths = project_of(context)
    console.table("artifacts", report.COLUMNS, report.artifacts(paths))
    console.facts("where the time of extracting went", report.time_spent(paths))
    if running := list(report.runs(paths)):
        console.facts("being extracted", running)
    if bad:
        console.table("unreadable images", ("split", "row", "key", "reason"), report.bad_images(paths))


@click.command()
@click.option("--split", "splits", type=click.Choice(SPLITS), multiple=True, help="Default: all there are.")
@click.pass_context
def verify(context: click.Context, splits: tuple[str, ...]) -> int:
    """Read every stored feature again and find flipped bits, torn and missing chunks. Exit 1 if any."""
    from cache.storage.lifecycle import store_exists
    from pipeline.checks.verify import verify_split

    _, paths = project_of(context)
    verdicts = []
    for split in splits or [split for split in SPLITS if store_exists(paths.features(split))] or SPLITS[:1]:
        with console.progress(f"verify {split}") as progress:
            verdicts.append(verify_split(paths, split, progress))
    columns = ("split", "chunks", "missing", "damaged", "bad rows", "verdict")
    console.table("feature stores", columns, (verdict.row() for verdict in verdicts))
    if faults := [row for verdict in verdicts for row in verdict.fault_rows()]:
        console.table("damage", ("split", "chunk", "rows", "array", "what is wrong"), faults)
    unsound = [verdict for verdict in verdicts if not verdict.sound]
    for verdict in unsound:
        console.say(f"{verdict.split}: run `{verdict.remedy}`")
    return int(bool(unsound))


@click.command()
@SCHEDULER
@DEVICE
@click.pass_context
def doctor(context: click.Context, scheduler: str | None, device: str) -> int:
    """Look at device, weights, disk, data and stores before hours are spent. Exit 1 if something blocks."""
    from pipeline.checks.doctor import examine

    params, paths = project_of(context)
    blocked = False
    for finding in examine(params, paths, device=device, scheduler=scheduler):
        blocked |= finding.blocks
        console.finding(finding.mark, finding.subject, finding.text, finding.remedy)
    return int(blocked)


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes that pack (default: one per processor core)."
)
@click.pass_context
def pack(context: click.Context, source: Path, output: Path, workers: int | None) -> None:
    """Gather the images of SOURCE (a folder, .csv, .txt list or .parquet manifest) in large files.

    OUTPUT then holds HDF5 files and manifest.parquet: set data.database or data.queries to that manifest.
    """
    from os import cpu_count

    from pipeline.runners.pack import pack as pack_images

    params, _ = project_of(context)
    with console.progress("pack") as progress:
        result = pack_images(params, source, output, workers=workers or cpu_count() or 1, progress=progress)
    console.facts(f"pack {source}: {result.manifest}", result.facts())


@click.group("export")
def export() -> None:
    """Write what the project holds for other programs."""


@export.command("features")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--split", type=click.Choice(("database", "queries")), required=True, help="Whose features.")
@click.pass_context
def export_features(context: click.Context, file: Path, split: str) -> None:
    """Write features to FILE: .h5 in hloc's layout, or .npy with a .csv of the keys beside it."""
    from pipeline.runners.import_export import export_split

    _, paths = project_of(context)
    with console.progress(f"export {split}") as progress:
        result = export_split(paths, split, file, progress=progress)
    console.facts(f"export {split}", result.facts())


@click.group("import")
def import_() -> None:
    """Take in what other programs made."""


@import_.command("features")
@click.argument("array", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("positions", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--split", type=click.Choice(("database", "queries")), required=True, help="Whose features.")
@click.option("--name", required=True, help="What made them; the same for database and queries.")
@click.option("--replace", is_flag=True, help="Drop features that something else made.")
@click.pass_context
def import_features(
    context: click.Context, array: Path, positions: Path, split: str, name: str, replace: bool
) -> None:
    """Train on your own features: ARRAY is an .npy (rows, F), POSITIONS a .csv with a line for each row.

    They take the place of `index` and `extract`. Set train.augment_views to false: there are no views.
    """
    from pipeline.runners.import_export import import_split

    params, paths = project_of(context)
    with console.progress(f"import {split}") as progress:
        result = import_split(
            params, paths, split, array, positions, name=name, replace=replace, progress=progress
        )
    console.facts(f"import {split}", result.facts())


COMMANDS = (init, demo, experiments, locate, status, verify, doctor, pack, export, import_)
