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


def resolve(device: str) -> str:
    """Return the device that `auto` stands for here."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def one_device(device: str) -> str:
    """Return the one device that is meant, once it is known to work.

    Raises
    ------
    ConfigError
        If this machine does not have it, or several are named.
    """
    from stages.devices import why_unusable

    resolved = resolve(device)
    if reason := why_unusable(resolved):
        raise ConfigError(
            f"--device is {device!r}, which cannot be used ({reason}): expected auto, cpu or one GPU of "
            "this machine such as cuda:0"
        )
    return resolved


def device_name(device: str) -> str:
    """Return a device in words, so that nobody is on the CPU without knowing."""
    import torch

    resolved = resolve(device)
    if resolved.startswith("cuda") and torch.cuda.is_available():
        return f"{resolved} ({torch.cuda.get_device_name(resolved.split(',')[0])})"
    return f"{resolved} ({torch.get_num_threads()} threads)"
