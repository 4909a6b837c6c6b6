"""The numbers of metrics.json as the report shows them: headline tiles and tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stages.eval.report.page import metres
from stages.files import printable

Metrics = dict[str, Any]

_LABELS = {
    "median_error_m": "median error, m",
    "radius_m": "radius, m",
    "index_bytes": "index size, bytes",
    "ECE": "expected calibration error, %",
    "mean": "mean confidence, %",
    "AUROC right": "AUROC, right against wrong answers",
    "AUROC outside": "AUROC, known against unknown places",
    "outside queries": "queries from unknown places",
    "abstained": "abstained, %",
    "abstained outside": "abstained at unknown places, %",
    "risk at 50 %": "wrong answers at 50 % coverage, %",
    "risk at 80 %": "wrong answers at 80 % coverage, %",
    "AURC": "area under the risk-coverage curve",
    "cell head": "in a head cell",
    "cell mid": "in a mid cell",
    "cell tail": "in a tail cell",
    "cell none": "in no trained cell",
}
"""Readable names of entries of metrics.json; others are shown as they are."""


@dataclass(frozen=True)
class Tile:
    """One headline number with its unit and a remark; both may be empty."""

    name: str
    value: str
    unit: str
    remark: str = ""


@dataclass(frozen=True)
class HtmlTable:
    """A table of plain texts; the cells of column number `name_column` may be long names."""

    caption: str
    columns: list[str]
    rows: list[list[str]]
    name_column: int = -1


@dataclass(frozen=True)
class Numbers:
    """All numbers of the report: tiles, tables that are always open, and tables to unfold."""

    tiles: list[Tile]
    comparison: list[HtmlTable]
    blocks: list[HtmlTable]
    details: list[HtmlTable]

    @classmethod
    def of(cls, metrics: Metrics) -> Numbers:
        """Return the numbers of metrics.json; the tiles are those of its first localiser."""
        localisers = {name: block for name, block in metrics.items() if "LR@1" in block}
        further = {name: block for name, block in metrics.items() if name not in localisers}
        tiles = _tiles(next(iter(localisers.values()), {}), further.get("confidence", {}))
        blocks = []
        if "breakdown" in further:
            blocks.append(_breakdown("LR@1 by type of query", further.pop("breakdown")))
        if "confidence" in further:
            blocks.append(_block("Quality of the confidence", further.pop("confidence")))
        return cls(
            tiles=tiles,
            comparison=[_comparison("Localisers compared", localisers)] if len(localisers) > 1 else [],
            blocks=blocks,
            details=[
                *(_block(f"All numbers of {_words(name)}", block) for name, block in localisers.items()),
                *(_block(_words(name).capitalize(), block) for name, block in further.items()),
            ],
        )


def _tiles(numbers: Metrics, confidence: Metrics) -> list[Tile]:
    tiles = []
    for name, value in numbers.items():
        if name.startswith("LR@") and name[3:].isdigit():
            low, high = numbers.get(f"{name} low"), numbers.get(f"{name} high")
            interval = "" if low is None or high is None else f"95 %: {low:.1f} to {high:.1f}"
            tiles.append(Tile(name, f"{value:.1f}", "%", interval))
    median = numbers.get("median_error_m")
    if median is not None:
        tiles.append(Tile("Median error", *metres(float(median)).split(" ")))
    if numbers.get("ceiling") is not None:
        tiles.append(
            Tile("Ceiling", f"{numbers['ceiling']:.1f}", "%", "queries within the radius of a cell's centre")
        )
    if confidence.get("AUROC outside") is not None:
        auroc = f"{confidence['AUROC outside']:.2f}"
        tiles.append(Tile("Outside AUROC", auroc, "", "how well confidence detects unknown places"))
    return tiles


def _comparison(caption: str, localisers: Metrics) -> HtmlTable:
    """Return a row per localiser, a column per number that all of them have, without the intervals."""
    columns = [
        name
        for name in next(iter(localisers.values()))
        if all(name in block for block in localisers.values()) and not name.endswith((" low", " high"))
    ]
    rows = [
        [_words(name), *(_text(column, block[column]) for column in columns)]
        for name, block in localisers.items()
    ]
    return HtmlTable(caption, ["", *map(_words, columns)], rows)


def _breakdown(caption: str, block: Metrics) -> HtmlTable:
    """Return a row per type of query from entries such as "cell head LR@1" and "cell head queries"."""
    types = [name.removesuffix(" LR@1") for name in block if name.endswith(" LR@1")]
    rows = [
        [_words(kind), _text("LR@1", block[f"{kind} LR@1"]), _text("", block.get(f"{kind} queries"))]
        for kind in types
    ]
    return HtmlTable(caption, ["", "LR@1, %", "queries"], rows)


def _block(caption: str, block: Metrics) -> HtmlTable:
    return HtmlTable(caption, ["", ""], [[_words(name), _text(name, value)] for name, value in block.items()])


def _words(name: str) -> str:
    return _LABELS.get(name, str(name).replace("_", " "))


def _text(name: str, value: object) -> str:
    if value is None:
        return "\u2013"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.1f}" if "LR@" in name else f"{value:,.4g}"
