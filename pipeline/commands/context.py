"""What every command starts from: the project it runs in, its device, its shards, its sources."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from cache.storage.paths import place_of
from pipeline import console
from pipeline.project.params import Params, load_params
from pipeline.project.paths import Paths
from stages.errors import ConfigError

DEVICE = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto (the GPU if there is one), cpu, cuda, cuda:1; extract: also several, cuda:0,cuda:1.",
)

SCHEDULER = click.option("--scheduler", metavar="ADDRESS", help="Dask: local:WORKERS or tcp://host:port.")


def project_of(context: click.Context) -> tuple[Params, Paths]:
    """Return the parameters and the paths of the project that the command runs in."""
    project: Path = context.obj
    params = load_params(project / "params.yaml")
    extract = params.extract
    home = place_of(params.data.features, project)
    return params, Paths(project, f"{extract.backbone}-{extract.image_size}", home)


def shards_of(params: Params, shards: tuple[int, ...] | None) -> Sequence[int]:
    """Return the shards asked for, all if none were, once they are known to exist."""
    every = range(params.extract.shards)
    beyond = [shard for shard in shards or () if shard not in every]
    if beyond:
        raise ConfigError(
            f"--shards names {beyond[0]}, expected 0 to {every[-1]}: extract.shards is {len(every)}"
        )
    return shards or every


def source_of(params: Params, paths: Paths, split: str) -> Path:
    """Return where a split's images are; the toy city is drawn first if it is not there yet."""
    source: str = getattr(params.data, split)
    if source != "toycity":
        return paths.project / source
    from stages.toycity.drawing import draw

    with console.progress("draw the toy city") as progress:
        draw(params.toycity, paths.toycity, progress=progress)
    return paths.toycity / split


def one_device(device: str) -> str:
    """Return the one device that is meant.

    Raises
    ------
    ConfigError
        If this machine cannot use it, or several are named.
    """
    from stages.devices import resolve_device

    if "," in device:
        raise ConfigError(f"--device is {device!r}: expected one device such as cuda:0")
    return resolve_device(device)
