"""`pipeline locate`: find out where photos were taken, each alone, on a walk, or several of one spot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline import console
from pipeline.commands.context import DEVICE, chosen_crops, in_project, one_device
from pipeline.commands.options import MODEL, STREETS, TILES, WEIGHTS
from pipeline.project.paths import Paths

if TYPE_CHECKING:
    from pipeline.locate.answer import Answer
    from pipeline.locate.localiser import PhotoLocaliser
    from stages.images.read import UnreadableImage
    from stages.models.localiser.walk import LookAt

FORMATS = ("table", "json", "csv", "geojson", "gpx")


@dataclass(frozen=True)
class LocateOptions:
    """The options of `pipeline locate`."""

    model: Path | None
    weights: Path | None
    top: int
    page: Path | None
    streets: Path | None
    tiles: str | None
    file_format: str | None
    output: Path | None
    near: str | None
    crops: str | None
    together: bool
    walk: bool
    past: bool
    speed: float
    fps: float | None
    device: str

    def __post_init__(self) -> None:
        if not self.walk and (self.past or self.fps):
            raise click.UsageError("--past and --fps go with --walk")
        if self.walk and self.together:
            raise click.UsageError(
                "--together is for photos of one spot, --walk for photos taken on the way: use one of them"
            )
        if self.page is None and (self.streets or self.tiles):
            raise click.UsageError("--streets and --tiles go with --map")
        if self.output is not None and self.written_as == "table":
            raise click.UsageError(
                f"--output {self.output}: expected a name that ends in .json, .csv, .geojson or .gpx, or one "
                "of these as --format"
            )

    @property
    def written_as(self) -> str:
        """The format: that of --format, else that of the name of --output."""
        ending = "" if self.output is None else self.output.suffix[1:].lower()
        return self.file_format or (ending if ending in FORMATS else "table")


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PHOTO...")
@MODEL
@WEIGHTS
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Number of answers.")
@click.option("--map", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML map.")
@STREETS
@TILES
@click.option(
    "--format",
    "file_format",
    type=click.Choice(FORMATS),
    help="What to print or write [default: table, or the ending of --output].",
)
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the answers to this file."
)
@click.option("--near", metavar="LAT,LON,RADIUS", help="They were taken within RADIUS metres of a position.")
@click.option(
    "--crops",
    type=click.Choice(("1", "3", "5")),
    help="Crops of each photo to average (default: eval.crops of the project, with --model 3).",
)
@click.option("--together", is_flag=True, help="The photos show one spot: give one answer.")
@click.option("--walk", is_flag=True, help="Locate the photos of a folder together, by their times.")
@click.option("--past", is_flag=True, help="With --walk: use only the photos before each one.")
@click.option(
    "--speed",
    type=click.FloatRange(0, min_open=True),
    default=0.7,
    show_default=True,
    help="With --walk: metres per second; about 8 in a car.",
)
@click.option(
    "--fps", type=click.FloatRange(0, min_open=True), help="With --walk: the photos are frames of a video."
)
@DEVICE
@in_project
def locate(context: click.Context, /, photos: tuple[Path, ...], **options: Any) -> int:
    """Find out where photos were taken.

    PHOTO is a file or a folder of photos. The exit code is 1 if any photo is unreadable.
    """
    from pipeline.locate import formats, output
    from pipeline.locate.localiser import PhotoLocaliser
    from pipeline.locate.photos import photos_of
    from stages.images.read import UnreadableImage

    chosen = LocateOptions(**options)
    folder = chosen.model or Paths(context.obj, "").localiser
    files = photos_of(photos)
    localiser = PhotoLocaliser.load(
        folder,
        weights=chosen.weights,
        device=one_device(chosen.device),
        crops=chosen_crops(chosen.crops, chosen.model, context.obj),
    )
    outcomes = []
    for outcome in _outcomes(localiser, files, chosen):
        outcomes.append(outcome)
        if chosen.written_as == "table" or chosen.output is not None:
            output.show(outcome)
    if chosen.output is not None:
        formats.write(chosen.output, formats.FORMATS[chosen.written_as](outcomes))
    if chosen.page is not None:
        _write_map(chosen, localiser, outcomes)
    if chosen.written_as != "table" and chosen.output is None:
        console.text(formats.FORMATS[chosen.written_as](outcomes))
    elif chosen.output is not None:
        console.note(f"answers written: {chosen.output}")
    return int(any(isinstance(outcome, UnreadableImage) for outcome in outcomes))


def _write_map(
    chosen: LocateOptions, localiser: PhotoLocaliser, outcomes: list[Answer | UnreadableImage]
) -> None:
    """Write the map and say so where that does not disturb a program that reads the answers."""
    from pipeline.locate.map_page import write_map
    from stages.eval.report.base_map import BaseMap

    page = chosen.page or Path()
    write_map(page, localiser.trained, outcomes, BaseMap(chosen.streets, chosen.tiles))
    console.note(f"map written: {page}")


def _outcomes(
    localiser: PhotoLocaliser, photos: list[Path], chosen: LocateOptions
) -> Iterable[Answer | UnreadableImage]:
    from pipeline.locate.near import Near

    near = None if chosen.near is None else Near.parse(chosen.near)
    if chosen.together:
        return localiser.locate_together(photos, top=chosen.top, near=near)
    if not chosen.walk:
        return localiser.locate_all(photos, top=chosen.top, near=near)
    look_at: LookAt = "past" if chosen.past else "whole"
    return localiser.locate_walk(
        photos, speed_m_s=chosen.speed, look_at=look_at, fps=chosen.fps, top=chosen.top, near=near
    )
