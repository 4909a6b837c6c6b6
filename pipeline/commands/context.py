"""What most commands start from: the project's settings and paths, a device, shards, image sources.

Everything slow to import is imported inside functions, here and in the commands, so that `pipeline --help`
answers at once.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline import console
from pipeline.project.paths import Paths, features_name
from stages.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.project.params import Params

DEVICE = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto (a GPU if there is one), cpu, cuda or cuda:1; extract also takes several: cuda:0,cuda:1.",
)

SCHEDULER = click.option(
    "--scheduler", metavar="ADDRESS", help="Dask cluster: local:WORKERS or tcp://host:port."
)


def nearest_project() -> Path:
    """Return the current folder or, if it holds no params.yaml, the nearest folder above that does."""
    if Path("params.yaml").exists():
        return Path()
    return next((folder for folder in Path.cwd().parents if (folder / "params.yaml").exists()), Path())


def in_project(command: Callable[..., Any]) -> Callable[..., Any]:
    """Pass the context to a command whose `obj` is the project folder; --project may follow the command."""

    @click.option(
        "--project",
        "chosen_project",
        type=click.Path(path_type=Path, file_okay=False),
        help="The project's folder.",
    )
    @click.pass_context
    @functools.wraps(command)
    def run(context: click.Context, /, chosen_project: Path | None, **arguments: Any) -> Any:
        context.obj = chosen_project or context.obj or nearest_project()
        sys.path.append(str(context.obj.resolve()))  # for extract.backbone: python:MODULE:FUNCTION
        return command(context, **arguments)

    return run


def project_of(context: click.Context) -> tuple[Params, Paths]:
    """Return the settings and the paths of the project that the command runs in."""
    from cache.storage.paths import storage_path
    from pipeline.project.params import load_params
    from stages.files import path_at_home

    project: Path = context.obj
    params = load_params(project / "params.yaml")
    extract = params.extract
    home = storage_path(params.data.features, path_at_home(project))
    return params, Paths(project, features_name(extract.backbone, extract.image_size), home)


def one_at_a_time(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let one process at a time run a command in a project; a second one is told which process runs it."""

    @in_project
    @functools.wraps(command)
    def run(context: click.Context, /, **arguments: Any) -> Any:
        from cache.storage.folder_lock import held

        _, paths = project_of(context)
        if os.environ.get("RANK", "0") != "0":  # torchrun starts several processes; the first one holds it
            return command(context, **arguments)
        name = str(context.info_name)
        with held(paths.lock(name), f"`pipeline {name}` in this project"):
            return command(context, **arguments)

    return run


def shards_of(params: Params, shards: tuple[int, ...] | None) -> Sequence[int]:
    """Return the requested shards, all by default.

    Raises
    ------
    ConfigError
        If one is not among the `extract.shards` shards.
    """
    all_shards = range(params.extract.shards)
    unknown = [shard for shard in shards or () if shard not in all_shards]
    if unknown:
        raise ConfigError(
            f"--shards names {unknown[0]}, expected 0 to {all_shards[-1]}: "
            f"extract.shards is {len(all_shards)}"
        )
    return shards or all_shards


def sources_of(params: Params, paths: Paths, split: str) -> tuple[Path, ...]:
    """Return where a split's images are; the toy city is drawn first if it does not exist yet."""
    from stages.files import path_at_home

    names, home = params.data.sources(split), path_at_home(paths.project)
    if home != paths.project:  # relative, so that the manifest is the same as in the project itself
        home = Path(os.path.relpath(home))
    city = Paths(home, "").toycity
    if "toycity" in names:
        from stages.toycity.draw import draw

        with console.progress("draw the toy city") as progress:
            draw(params.toycity, city, progress=progress)
    return tuple(city / split if name == "toycity" else home / name for name in names)


def one_device(device: str) -> str:
    """Return the device that a name such as "auto" stands for.

    Raises
    ------
    ConfigError
        If this machine cannot use it, or the name lists several.
    """
    from stages.devices import resolve_device

    if "," in device:
        raise ConfigError(
            f"--device is {device!r}: expected one device such as cuda:0. Only `pipeline extract` "
            "takes several; `torchrun` trains on several (docs/guide.md)"
        )
    return resolve_device(device)


def chosen_crops(crops: str | None, model: Path | None, project: Path) -> int:
    """Return the crops of each photo: the chosen ones, else those that the project is evaluated with."""
    if crops is not None:
        return int(crops)
    if model is not None or not (project / "params.yaml").exists():
        from stages.images.preprocess import USUAL_CROPS

        return USUAL_CROPS
    from pipeline.project.params import load_params

    return load_params(project / "params.yaml").eval.crops
