"""Output on the terminal: progress bars, tables, one-line errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich import progress as bars
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Names come from files: brackets are no markup in them, and ":car:" is no emoji.
out = Console(highlight=False, soft_wrap=True, emoji=False)
if not out.is_terminal:
    out.width = 120  # a pipe or a file has no width; the default of 80 would fold the tables
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def line(text: str) -> None:
    """Print one line of plain text."""
    out.print(plain(text))


def error(text: str) -> None:
    """Print one red line on standard error."""
    err.print(plain(f"error: {' '.join(text.split())}"), style="red")


def plain(text: str) -> Text:
    """Return text as it is shown: never markup, and without control characters except line ends."""
    from stages.files import printable  # imports numpy, which `--help` does not need

    return Text("\n".join(printable(part) for part in text.split("\n")))


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
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[note]}", markup=False),
        bars.TimeRemainingColumn(),
    )
    disable = hidden or not err.is_terminal
    with bars.Progress(*columns, console=err, transient=True, disable=disable) as bar:
        yield ProgressBar(bar, title)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table; the first column is left-aligned, the others right-aligned."""
    shown = Table(title=plain(title), title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        shown.add_column(plain(column), justify="right" if number else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(plain(cell(value)) for value in row))
    out.print(shown)


def facts(title: str, rows: Iterable[tuple[str, object]]) -> None:
    """Print a title, then one line per fact."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(plain(f"  {name}"), plain(cell(value)))
    out.print(plain(title), style="bold")
    out.print(grid)


def finding(mark: str, subject: str, text: str, remedy: str) -> None:
    """Print the state of one subject, and the fix below it."""
    style = {"ok": "green", "note": "yellow", "blocks": "bold red"}[mark]
    out.print(Text(f"{mark:6}", style), plain(f"{subject:17}"), plain(text))
    if remedy:
        line(" " * 25 + "-> " + remedy)


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
