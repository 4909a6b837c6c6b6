"""The everyday commands: start a project, run the demo, localise photos, look at the progress."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline import console, metrics_table
from pipeline.commands.context import DEVICE, in_project, one_device, project_of
from pipeline.project.paths import Paths


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="A setting to change.")
def init(folder: Path, settings: tuple[str, ...]) -> None:
    """Create a project in FOLDER.

    It gets params.yaml, dvc.yaml, experiments.yaml, DVC, and a Git repository unless FOLDER is already in
    one. These files are committed, so that `dvc metrics diff` and `dvc exp run` have a baseline.
    """
    from pipeline.project.init import make_project, parse_setting

    repository = make_project(folder, dict(parse_setting(setting) for setting in settings))
    if repository is not None:
        console.line(f"{folder} is in the Git repository {repository}: its new files are committed there")
    console.line(f"created {folder}: edit its params.yaml, then run `dvc repro` there")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("demo"))
def demo(folder: Path) -> None:
    """Run the whole pipeline on a toy city, in FOLDER.

    FOLDER is "demo" by default. The city is drawn by the program itself.
    """
    from pipeline.project import demo as demo_project

    demo_project.run(folder, report=console.line)
    metrics_table.show(Paths(folder, "").metrics, localisers_only=True)


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PHOTO...")
@click.option("--model", type=click.Path(path_type=Path, file_okay=False), help="Folder of the localiser.")
@click.option(
    "--weights", type=click.Path(path_type=Path, dir_okay=False), help="File with the backbone's weights."
)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Number of answers.")
@click.option("--map", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML map.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@DEVICE
@in_project
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
    """Find out where photos were taken.

    PHOTO is a file or a folder of photos. The exit code is 1 if any photo is unreadable.
    """
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
@click.option("--bad", is_flag=True, help="List the skipped and unreadable images, with reasons.")
@in_project
def status(context: click.Context, bad: bool) -> None:
    """Show what is done, missing and unreadable, size and speed."""
    from pipeline.checks import status as checks

    _, paths = project_of(context)
    console.table("artifacts", checks.COLUMNS, checks.artifacts(paths))
    console.facts("time spent extracting", checks.time_spent(paths))
    if running := list(checks.running_extractions(paths)):
        console.facts("being extracted", running)
    if bad:
        console.table("skipped by index", ("split", "key", "reason"), checks.skipped_entries(paths))
        console.table("unreadable images", ("split", "row", "key", "reason"), checks.bad_images(paths))


COMMANDS = (init, demo, locate, status)
