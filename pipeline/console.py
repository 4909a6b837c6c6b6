"""Output on the terminal: progress bars, tables, one-line errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich import progress as bars
from rich.console import Console
from rich.markup import escape
from rich.table import Table

out = Console(highlight=False, soft_wrap=True)
if not out.is_terminal:
    out.width = 120  # a pipe or a file has no width; the default of 80 would fold the tables
err = Console(stderr=True, highlight=False, soft_wrap=True)


def line(text: str) -> None:
    """Print one line of plain text."""
    out.print(text, markup=False)


def error(text: str) -> None:
    """Print one red line on standard error."""
    err.print(f"error: {' '.join(text.split())}", style="red", markup=False)


class ProgressBar:
    """A bar that moves when it is called with (done, total)."""

    def __init__(self, bar: bars.Progress, title: str) -> None:
        self._bar, self._task = bar, bar.add_task(title, total=None, note="")

    def __call__(self, done: int, total: int) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=done, total=total)

    def note(self, text: str) -> None:
        """Show a text beside the bar."""
        self._bar.update(self._task, note=text)


@contextmanager
def progress(title: str, *, hidden: bool = False) -> Iterator[ProgressBar]:
    """Yield a progress bar; nothing is shown without a terminal."""
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[note]}"),
        bars.TimeRemainingColumn(),
    )
    disable = hidden or not err.is_terminal
    with bars.Progress(*columns, console=err, transient=True, disable=disable) as bar:
        yield ProgressBar(bar, title)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table; the first column is left-aligned, the others right-aligned."""
    shown = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        shown.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(cell(value) for value in row))
    out.print(shown)


def facts(title: str, rows: Iterable[tuple[str, object]]) -> None:
    """Print a title, then one line per fact."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(f"  {name}", cell(value))
    out.print(title, style="bold", markup=False)
    out.print(grid)


def finding(mark: str, subject: str, text: str, remedy: str) -> None:
    """Print the state of one subject, and the fix below it."""
    style = {"ok": "green", "note": "yellow", "blocks": "bold red"}[mark]
    out.print(f"[{style}]{mark:6}[/]", f"{subject:17}", escape(text))
    if remedy:
        out.print(" " * 25 + "-> " + remedy, markup=False)


def cell(value: object) -> str:
    """Return a value as readable text, such as 1,234 or 12.3."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return (
            f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 1 else f"{value:,.1f}"
        )
    return str(value)


def size(count: int) -> str:
    """Return a number of bytes as readable text, such as 12.3 MB (powers of 1,000)."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
