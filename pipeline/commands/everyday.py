"""The everyday commands: start a project, run the demo, localise photos, look at the progress."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline import console, metrics_table
from pipeline.commands.context import DEVICE, in_project, one_device, project_of
from pipeline.project.paths import Paths

if TYPE_CHECKING:
    from pipeline.locate.answer import Answer
    from pipeline.locate.localiser import PhotoLocaliser
    from stages.images.read import UnreadableImage
    from stages.models.localiser.walk import LookAt


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="A setting to change.")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, exists=True),
    help="Photos with known positions: a folder, .csv, .txt or manifest. Settings are chosen to fit.",
)
@click.option(
    "--queries",
    type=click.Path(path_type=Path, exists=True),
    help="Photos to locate (default: some photos of --from are held out).",
)
def init(folder: Path, settings: tuple[str, ...], source: Path | None, queries: Path | None) -> None:
    """Create a project in FOLDER.

    It gets params.yaml, dvc.yaml, experiments.yaml, DVC, and a Git repository unless FOLDER is already in
    one. These files are committed, so that `dvc metrics diff` and `dvc exp run` have a baseline.
    """
    from pipeline.project.init import make_project, parse_setting

    own = dict(parse_setting(setting) for setting in settings)
    if queries is not None and source is None:
        raise click.UsageError("--queries needs --from, the photos with known positions")
    if source is None:
        repository = make_project(folder, own)
    else:
        repository = _project_of_photos(folder, own, source, queries)
    if repository is not None:
        console.line(f"{folder} is in the Git repository {repository}: its new files are committed there")
    console.line(f"created {folder}: check its params.yaml, then run `dvc repro` there")


def _project_of_photos(
    folder: Path, own: dict[str, object], source: Path, queries: Path | None
) -> Path | None:
    """Create a project whose settings fit photos; `own` settings take precedence. Print the choices."""
    from tempfile import TemporaryDirectory

    from pipeline.project.choices import choose
    from pipeline.project.init import make_project

    with TemporaryDirectory() as scratch:
        chosen = choose(source, queries, Path(scratch), one_device("auto"), console.progress)
        repository = make_project(folder, chosen.settings | own, add=chosen.write_lists)
    for choice in chosen.choices:
        if choice.setting not in own:
            console.line(f"{choice.setting}: {choice.value}  ({choice.reason})")
    return repository


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("demo"))
def demo(folder: Path) -> None:
    """Run the whole pipeline on a toy city, in FOLDER.

    FOLDER is "demo" by default. The city is drawn by the program itself.
    """
    from pipeline.project import demo as demo_project

    demo_project.run(folder, report=console.line)
    paths = Paths(folder, "")
    metrics_table.show(paths, localisers_only=True)
    console.link(paths.report)


@dataclass(frozen=True)
class LocateOptions:
    """The options of `pipeline locate`."""

    model: Path | None
    weights: Path | None
    top: int
    page: Path | None
    as_json: bool
    walk: bool
    past: bool
    speed: float
    fps: float | None
    gpx: Path | None
    device: str


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PHOTO...")
@click.option("--model", type=click.Path(path_type=Path, file_okay=False), help="Folder of the localiser.")
@click.option(
    "--weights", type=click.Path(path_type=Path, dir_okay=False), help="File with the backbone's weights."
)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Number of answers.")
@click.option("--map", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML map.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--walk", is_flag=True, help="Locate the photos of a folder together, by their times.")
@click.option("--past", is_flag=True, help="With --walk: use only the photos before each one.")
@click.option(
    "--speed",
    type=click.FloatRange(0, min_open=True),
    default=1.4,
    show_default=True,
    help="With --walk: metres per second; about 8 in a car.",
)
@click.option(
    "--fps", type=click.FloatRange(0, min_open=True), help="With --walk: the photos are frames of a video."
)
@click.option("--gpx", type=click.Path(path_type=Path, dir_okay=False), help="Write a GPX track.")
@DEVICE
@in_project
def locate(context: click.Context, /, photos: tuple[Path, ...], **options: Any) -> int:
    """Find out where photos were taken.

    PHOTO is a file or a folder of photos. The exit code is 1 if any photo is unreadable.
    """
    from pipeline.locate import output
    from pipeline.locate.localiser import PhotoLocaliser, photos_of
    from pipeline.locate.walk import write_gpx
    from stages.images.read import UnreadableImage

    chosen = LocateOptions(**options)
    if not chosen.walk and (chosen.past or chosen.fps):
        raise click.UsageError("--past and --fps go with --walk")
    folder = chosen.model or Paths(context.obj, "").localiser
    files = photos_of(photos)
    localiser = PhotoLocaliser.load(folder, weights=chosen.weights, device=one_device(chosen.device))
    outcomes = []
    for outcome in _outcomes(localiser, files, chosen):
        outcomes.append(outcome)
        if not chosen.as_json:
            output.show(outcome)
    if chosen.as_json:
        click.echo(output.as_json(outcomes))
    if chosen.page is not None:
        output.write_map(chosen.page, localiser, outcomes)
    if chosen.gpx is not None:
        write_gpx(chosen.gpx, [outcome for outcome in outcomes if not isinstance(outcome, UnreadableImage)])
    return int(any(isinstance(outcome, UnreadableImage) for outcome in outcomes))


def _outcomes(
    localiser: PhotoLocaliser, photos: list[Path], chosen: LocateOptions
) -> Iterable[Answer | UnreadableImage]:
    if not chosen.walk:
        return localiser.locate_all(photos, top=chosen.top)
    look_at: LookAt = "past" if chosen.past else "whole"
    return localiser.locate_walk(
        photos, speed_m_s=chosen.speed, look_at=look_at, fps=chosen.fps, top=chosen.top
    )


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


@click.command()
@click.argument("topic", default="")
def explain(topic: str) -> None:
    """Explain the words in metrics, reports and tables.

    TOPIC is metrics, train-heads, data, places or a word such as ECE. Without it, everything is printed.
    """
    from pipeline.project.glossary import explain as lookup
    from pipeline.project.glossary import read_glossary

    glossary = read_glossary()
    sections = lookup(glossary, topic)
    if not sections:
        known = ", ".join(glossary)
        raise click.ClickException(f"{topic} is not in the glossary: expected a word, or {known}")
    for title, rows in sections.items():
        console.facts(title, rows)


COMMANDS = (init, demo, locate, status, explain)
