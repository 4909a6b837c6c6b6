"""The command line: all commands in one group; an expected error is printed as one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from cache.errors import PlacecacheError
from pipeline import console
from pipeline.commands import everyday, exchange, stages, tools
from pipeline.commands.help import GroupWithHeadings
from pipeline.commands.system_errors import explain
from stages.devices import let_idle_threads_sleep


@click.group(cls=GroupWithHeadings, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="placecache")
@click.option(
    "--project",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that holds params.yaml (default: this folder or the nearest above).",
)
@click.pass_context
def cli(context: click.Context, project: Path | None) -> None:
    """Find out where in a city a photo was taken.

    `dvc repro` runs the stages that are out of date, in the order listed.
    """
    context.obj = project


cli.add_heading("Stages", stages.COMMANDS)
cli.add_heading("Everyday", everyday.COMMANDS)
cli.add_heading("Tools", (*tools.COMMANDS, *exchange.COMMANDS, tools.experiments))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 1 after an expected error, 2 after a wrong call, 130 after Ctrl-C."""
    let_idle_threads_sleep()
    try:
        code = cli.main(args=arguments, standalone_mode=False)
    except click.UsageError as fault:
        where = f" (see `{fault.ctx.command_path} --help`)" if fault.ctx else ""
        console.error(fault.format_message() + where)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt) as fault:
        if isinstance(fault.__cause__, EOFError):  # click takes it for Ctrl-D at a prompt, and there is none
            raise fault.__cause__ from None
        console.error("interrupted: run the same command again to continue")
        sys.exit(130)
    except OSError as fault:
        console.error(explain(fault))
        sys.exit(1)
    except (PlacecacheError, click.ClickException) as fault:
        console.error(str(fault))
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
