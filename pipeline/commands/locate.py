"""`pipeline locate`: find out where photos were taken, each alone, on a walk, or several of one spot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.context import DEVICE, in_project, one_device
from pipeline.project.paths import Paths

if TYPE_CHECKING:
    from pipeline.locate.answer import Answer
    from pipeline.locate.localiser import PhotoLocaliser
    from stages.images.read import UnreadableImage
    from stages.models.localiser.walk import LookAt


@dataclass(frozen=True)
class LocateOptions:
    """The options of `pipeline locate`."""

    model: Path | None
    weights: Path | None
    top: int
    page: Path | None
    as_json: bool
    near: str | None
    crops: str | None
    together: bool
    walk: bool
    past: bool
    speed: float
    fps: float | None
    gpx: Path | None
    device: str

    def __post_init__(self) -> None:
        if not self.walk and (self.past or self.fps):
            raise click.UsageError("--past and --fps go with --walk")
        if self.walk and self.together:
            raise click.UsageError(
                "--together is for photos of one spot, --walk for photos taken on the way: use one of them"
            )


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PHOTO...")
@click.option("--model", type=click.Path(path_type=Path, file_okay=False), help="Folder of the localiser.")
@click.option(
    "--weights", type=click.Path(path_type=Path, dir_okay=False), help="File with the backbone's weights."
)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Number of answers.")
@click.option("--map", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML map.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--near", metavar="LAT,LON,RADIUS", help="They were taken within RADIUS metres of a position.")
@click.option(
    "--crops",
    type=click.Choice(("1", "3", "5")),
    help="Crops of each photo to average (default: eval.crops of the project, with --model 1).",
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
@click.option("--gpx", type=click.Path(path_type=Path, dir_okay=False), help="Write a GPX track.")
@DEVICE
@in_project
def locate(context: click.Context, /, photos: tuple[Path, ...], **options: Any) -> int:
    """Find out where photos were taken.

    PHOTO is a file or a folder of photos. The exit code is 1 if any photo is unreadable.
    """
    from pipeline.locate import output
    from pipeline.locate.localiser import PhotoLocaliser
    from pipeline.locate.photos import photos_of
    from pipeline.locate.walk import write_gpx
    from stages.images.read import UnreadableImage

    chosen = LocateOptions(**options)
    folder = chosen.model or Paths(context.obj, "").localiser
    files = photos_of(photos)
    localiser = PhotoLocaliser.load(
        folder, weights=chosen.weights, device=one_device(chosen.device), crops=_crops(chosen, context.obj)
    )
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


def _crops(chosen: LocateOptions, project: Path) -> int:
    """Return the crops of each photo: those of the option, else those that the project is evaluated with."""
    if chosen.crops is not None or chosen.model is not None or not (project / "params.yaml").exists():
        return int(chosen.crops or 1)
    from pipeline.project.params import load_params

    return load_params(project / "params.yaml").eval.crops


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
