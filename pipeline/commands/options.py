"""Options that several commands share, and click types: splits, shards, seeds and groups."""

from __future__ import annotations

import re
from pathlib import Path

import click

from pipeline.project.paths import SPLITS

_PART = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
_MOST = 1_000_000  # a typing error such as 0-99999999 must not fill the memory

SPLIT = click.Choice(SPLITS)


def numbers_of(text: str) -> tuple[int, ...]:
    """Return the numbers that a text such as "0,3,7-9" names, sorted, each once.

    Raises
    ------
    ValueError
        If a part is neither a number nor an increasing range.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"'{part.strip()}' is neither a number nor a range such as 0-63")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if last < first:
            raise ValueError(f"the range {part.strip()} runs backwards: expected {last}-{first}")
        if last - first >= _MOST:
            raise ValueError(f"the range {part.strip()} names more than {_MOST:,} numbers")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


class NumberRange(click.ParamType):  # type: ignore[type-arg]
    """Numbers: "5", "0-63" or "0,3,7-9" becomes a sorted tuple of int; "all", if allowed, becomes None."""

    def __init__(self, name: str, *, allow_all: bool = False) -> None:
        self.name, self.allow_all = name, allow_all

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...] | None:
        """Return the numbers, or fail with a one-line error; whether they exist is up to the caller."""
        if isinstance(value, tuple):
            return value
        if self.allow_all and value.strip().lower() == "all":
            return None
        try:
            return numbers_of(value)
        except ValueError as error:
            examples = "all, 5, 0-63 or 0,3,7-9" if self.allow_all else "5, 0-63 or 0,3,7-9"
            self.fail(f"{error}; {self.name} are given as {examples}", param, ctx)


SHARDS, SEEDS = NumberRange("shards"), NumberRange("seeds")
GROUPS = NumberRange("groups", allow_all=True)

MODEL = click.option(
    "--model", type=click.Path(path_type=Path, file_okay=False), help="Folder of the localiser."
)
WEIGHTS = click.option(
    "--weights", type=click.Path(path_type=Path, dir_okay=False), help="File with the backbone's weights."
)
STREETS = click.option(
    "--streets",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="GeoJSON with streets to draw on the map.",
)
TILES = click.option(
    "--tiles", metavar="URL", help="Load map tiles when the page is open: https://.../{z}/{x}/{y}.png"
)
