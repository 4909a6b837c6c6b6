"""The program: its commands put together, its errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from cache.errors import PlacecacheError
from pipeline import console
from pipeline.commands import stages as stage_commands
from pipeline.commands import tools as tool_commands


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="placecache")
@click.option(
    "--project",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder that holds params.yaml (default: this one).",
)
@click.pass_context
def cli(context: click.Context, project: Path) -> None:
    """Say where in a city a photo was taken.

    The stages, in order: index, partition, extract, train-heads, eval. `dvc repro` runs those that are due.
    """
    context.obj = project


for command in (*stage_commands.COMMANDS, *tool_commands.COMMANDS):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: an error on purpose is one line and exit 1 (2 for a wrong call)."""
    try:
        code = cli.main(args=arguments, standalone_mode=False)
    except click.UsageError as fault:
        where = f" (see `{fault.ctx.command_path} --help`)" if fault.ctx else ""
        console.error(fault.format_message() + where)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        console.error("interrupted: run the same command again to continue")
        sys.exit(130)
    except (PlacecacheError, click.ClickException) as fault:
        console.error(str(fault))
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
