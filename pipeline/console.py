"""Output on the terminal: progress bars, tables, one-line errors."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from rich import progress as bars
from rich.console import Console
from rich.table import Table
from rich.text import Text


class PatientConsole(Console):
    """A console that goes on when its reader, such as `head`, has enough: results are still to be written."""

    def on_broken_pipe(self) -> None:
        """Print nothing more."""
        drop_output()


def drop_output() -> None:
    """Send what is still printed to nobody."""
    nobody = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nobody, sys.stdout.fileno())
    os.close(nobody)


# Names come from files: brackets are no markup in them, and ":car:" is no emoji.
out = PatientConsole(highlight=False, soft_wrap=True, emoji=False)
if not out.is_terminal:
    out.width = 120  # a pipe or a file has no width; the default of 80 would fold the tables
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
LOG_S = 30.0  # seconds between lines of progress without a terminal
REDRAW_S = 0.1  # least seconds between two states of a bar: a training step may take one millisecond


def line(text: str) -> None:
    """Print one line of plain text."""
    out.print(plain(text))


def text(content: str) -> None:
    """Print text as it is, for programs."""
    try:
        sys.stdout.write(content)
        sys.stdout.flush()
    except BrokenPipeError:
        drop_output()


def link(page: Path) -> None:
    """Print a page's place as a link, which terminals open with a click."""
    line(page.resolve().as_uri())


def error(text: str) -> None:
    """Print one red line on standard error."""
    err.print(plain(f"error: {' '.join(text.split())}"), style="red")


def note(text: str) -> None:
    """Print one line on standard error, where it is in no program's way."""
    err.print(plain(text))


def plain(text: str) -> Text:
    """Return text as it is shown: never markup, and without control characters except line ends."""
    from stages.files import printable  # imports numpy, which `--help` does not need

    return Text("\n".join(printable(part) for part in text.split("\n")))


class ProgressBar:
    """Progress of some work, called with (done, total): a bar on a terminal, else a line now and then."""

    def __init__(self, bar: bars.Progress, title: str, unit: str) -> None:
        self._bar, self._title, self._unit = bar, title, unit
        self._task = bar.add_task(title, total=None, note="", speed="")
        self._done, self._total, self._note = 0, 0, ""
        self._first: tuple[float, int] | None = None  # when and where the speed is measured from
        self._opened = self._drawn = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Move the bar."""
        now = time.monotonic()
        if self._first is None or done < self._done:  # what was done before has no speed
            self._first = now, done
        self._done, self._total = done, total
        if done >= total or now - self._drawn > REDRAW_S:
            self._drawn = now
            self._bar.update(self._task, completed=done, total=total, speed=self._speed(now))

    def note(self, text: str) -> None:
        """Show a text beside the bar."""
        self._note = text
        self._bar.update(self._task, note=text)

    def line(self) -> str:
        """Return the state as one line of a log."""
        now = time.monotonic()
        if not self._total:
            return f"{self._title}: preparing for {duration(now - self._opened)}"
        done = f"{self._done:,} / {self._total:,} {self._unit}"
        parts = [f"{self._title}: {done}", self._speed(now), " ".join(self._note.split())]
        return ", ".join(part for part in parts if part)

    def _speed(self, now: float) -> str:
        """Return speed and time left; nothing before both are known."""
        seconds, done = (now - self._first[0], self._done - self._first[1]) if self._first else (0.0, 0)
        if done <= 0 or seconds <= 0:
            return ""
        left = (self._total - self._done) * seconds / done
        return f"{cell(done / seconds)} {self._unit}/s, {duration(left)} left"


@contextmanager
def progress(title: str, *, unit: str = "images", hidden: bool = False) -> Iterator[ProgressBar]:
    """Yield a progress bar; without a terminal, print its state every 30 seconds on standard error."""
    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[speed]}", markup=False),
        bars.TextColumn("{task.fields[note]}", markup=False),
    )
    disable = hidden or not err.is_terminal
    with bars.Progress(*columns, console=err, transient=True, disable=disable) as bar:
        shown = ProgressBar(bar, title, unit)
        if err.is_terminal or hidden:
            yield shown
        else:
            with _logged(shown):
                yield shown


@contextmanager
def _logged(shown: ProgressBar) -> Iterator[None]:
    """Print a progress every LOG_S seconds, also while nothing moves; a thread keeps the time."""
    ended = Event()

    def log() -> None:
        while not ended.wait(LOG_S):
            err.print(plain(shown.line()))

    thread = Thread(target=log, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def duration(seconds: float) -> str:
    """Return a time as readable text, such as 40 s, 12 min or 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60} min"


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
