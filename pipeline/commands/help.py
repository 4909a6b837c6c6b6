"""Command groups that show their help without a command; the program's lists commands under headings."""

from __future__ import annotations

from collections.abc import Sequence

import click

LINE = 60  # characters of a command's first help line that fit beside its name in 80 columns


class HelpfulGroup(click.Group):
    """A group that prints its help, and succeeds, if it is called without a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Print the help if there is nothing to parse."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)


class GroupWithHeadings(HelpfulGroup):
    """A group whose help lists commands under headings, in the order in which they were added."""

    def add_heading(self, title: str, commands: Sequence[click.Command]) -> None:
        """Add commands under a heading."""
        for command in commands:
            self.add_command(command)
        self._headings = {**getattr(self, "_headings", {}), title: commands}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands in the order in which they were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one line per command, all names in one column."""
        width = max(map(len, self.commands))
        for title, commands in self._headings.items():
            with formatter.section(title):
                lines = [(str(each.name).ljust(width), each.get_short_help_str(LINE)) for each in commands]
                formatter.write_dl(lines)
