"""`pipeline serve`: locate photos over HTTP."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline import console
from pipeline.commands.context import DEVICE, chosen_crops, in_project, one_device
from pipeline.commands.options import MODEL, WEIGHTS
from pipeline.project.paths import Paths
from stages.errors import ConfigError


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0: every network of this machine.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free port."
)
@click.option(
    "--token", envvar="PLACECACHE_TOKEN", help="Token that every request must send (or PLACECACHE_TOKEN)."
)
@MODEL
@WEIGHTS
@click.option(
    "--photos", type=click.IntRange(1), default=20, show_default=True, help="Photos in a request, at most."
)
@click.option(
    "--photo-mb",
    type=click.FloatRange(0.001),
    default=20.0,
    show_default=True,
    help="Size of a photo, at most.",
)
@click.option(
    "--megapixels",
    type=click.FloatRange(0.001, 89),
    default=64.0,
    show_default=True,
    help="Pixels of a photo, at most.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=30.0,
    show_default=True,
    help="Seconds for a request, at most.",
)
@DEVICE
@in_project
def serve(
    context: click.Context,
    /,
    host: str,
    port: int,
    token: str | None,
    model: Path | None,
    weights: Path | None,
    device: str,
    **most: float,
) -> None:
    """Locate photos over HTTP, with a page for people.

    `curl -F photo=@x.jpg http://127.0.0.1:8000/locate` prints the answer; /openapi.json describes all.
    """
    try:
        from pipeline.serve.app import make_app
        from pipeline.serve.run import is_loopback, listen, server_of
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"`pipeline serve` needs the package {error.name}: run `pip install 'placecache[serve]'`"
        ) from error
    if token and not token.isascii():
        raise ConfigError("--token has letters that HTTP cannot carry: use ASCII")
    from pipeline.locate.localiser import PhotoLocaliser
    from pipeline.serve.limits import Limits

    limits = Limits(
        round(most["photo_mb"] * 1e6), int(most["photos"]), round(most["megapixels"] * 1e6), most["timeout"]
    )
    folder = model or Paths(context.obj, "").localiser
    with listen(host, port) as opened:
        crops = chosen_crops(None, model, context.obj)
        localiser = PhotoLocaliser.load(folder, weights=weights, device=one_device(device), crops=crops)
        address = f"[{host}]" if ":" in host else host
        console.line(f"serving {folder} on http://{address}:{opened.getsockname()[1]}; Ctrl-C ends it")
        if not is_loopback(host):
            console.line(_warning(token))
        server_of(make_app(localiser, limits, token or None)).run(sockets=[opened])


def _warning(token: str | None) -> str:
    text = "warning: other machines can reach this address, and photos travel unencrypted"
    if token:
        return f"{text}: put a proxy with TLS in front of it"
    return f"{text}; anyone can use it: set --token, and put a proxy with TLS in front of it"
