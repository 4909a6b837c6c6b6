"""The parts of the report's page, each as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from stages.eval.plots.figure import Plot
from stages.eval.report.map_view import MapItem, map_html
from stages.eval.report.page import metres, table
from stages.files import printable

Metrics = dict[str, Any]

DOT = " \u00b7 "
TABLE_ROWS = 200
"""Queries in the table below the map, which is for people who cannot see the map."""


def header_html(title: str, facts: Sequence[str]) -> str:
    """Return title, facts and the links to the sections."""
    links = (("numbers", "Numbers"), ("map-section", "Map"), ("plots", "Plots"), ("photos", "Photos"))
    nav = "".join(f'<a href="#{anchor}">{name}</a>' for anchor, name in links)
    return (
        '<a class="skip" href="#map-section">To the map</a>'
        f'<header><h1>{escape(title)}</h1><p class="facts">{escape(DOT.join(facts))}</p>'
        f'<nav aria-label="Sections">{nav}</nav></header>'
    )


def numbers_html(metrics: Metrics) -> str:
    """Return the headline tiles of the first localiser, a table of all, and the further blocks."""
    localisers = {name: block for name, block in metrics.items() if "LR@1" in block}
    further = {name: block for name, block in metrics.items() if name not in localisers}
    first: Metrics = next(iter(localisers.values()), {})
    tiles = "".join(_tile(*tile) for tile in _headline(first, further.get("confidence", {})))
    parts = [f'<section id="numbers" aria-label="Numbers"><dl class="tiles">{tiles}</dl>']
    if len(localisers) > 1:
        parts.append(_comparison("Localisers compared", localisers))
    shown = []
    if "breakdown" in further:
        shown.append(_breakdown("LR@1 by kind of query", further.pop("breakdown")))
    if "confidence" in further:
        shown.append(_block("How far the confidence can be trusted", further.pop("confidence")))
    parts.append(f'<div class="blocks">{"".join(shown)}</div>')
    details = [_block(f"All numbers of {_words(name)}", block) for name, block in localisers.items()]
    details += [_block(_words(name).capitalize(), block) for name, block in further.items()]
    if details:
        parts.append(
            f'<details><summary>All numbers</summary><div class="blocks">{"".join(details)}</div></details>'
        )
    return "".join(parts) + "</section>"


def map_section(items: Sequence[MapItem], *, total: int, radius_m: float) -> str:
    """Return the map with its explanation and the same numbers as a table."""
    shown = "" if len(items) == total else f" {len(items):,} of {total:,} queries are shown."
    symbols = (
        "A ring is where a query was taken, a diamond where the localiser puts it, the line between them "
        f"is the error. Right means within {radius_m:g} m. Darker cells have more training images.{shown}"
    )
    rows = [
        [str(number + 1), _error_of(item), _stated_of(item), printable(item.label)]
        for number, item in enumerate(items[:TABLE_ROWS])
    ]
    queries = table(
        f"The first {len(rows)} queries of the map, worst first",
        ["", "error", "confidence" if _confident(items) else "score", "query"],
        rows,
        name_column=3,
    )
    return (
        '<section id="map-section"><h2>Map</h2>'
        f'<p class="symbols">{symbols}</p>{map_html(items, title="Map of queries and answers")}'
        f"<details><summary>The map as a table</summary>{queries}</details></section>"
    )


def plots_html(plots: Sequence[Plot]) -> str:
    """Return the plots as inline SVG."""
    figures = "".join(
        f"<figure>{plot.svg()}<figcaption>{escape(plot.caption)}</figcaption></figure>" for plot in plots
    )
    return f'<section id="plots"><h2>Plots</h2><div class="plots">{figures}</div></section>'


def photos_html(cards: str, *, left_out: int, budget_mb: float) -> str:
    """Return the section of the cards."""
    missing = ""
    if left_out:
        missing = f" {left_out:,} photos are left out: report.photos_mb limits them to {budget_mb:g} MB."
    intro = (
        "The worst failures first, then those where no cell could have been right, then some right "
        "answers. Each query stands beside photos of the cells it was taken for, those looking the same "
        f"way first; a green frame is a cell within the radius.{missing}"
    )
    body = cards or '<p class="quiet">No query was chosen: report.queries says how many.</p>'
    return f'<section id="photos"><h2>Photos</h2><p class="quiet">{intro}</p>{body}</section>'


def footer_html(facts: Sequence[str]) -> str:
    """Return the footer."""
    return f"<footer>{escape(DOT.join(facts))}</footer>"


def _headline(numbers: Metrics, confidence: Metrics) -> list[tuple[str, str, str, str]]:
    """Return (name, value, unit, remark) of the tiles."""
    tiles = []
    for name, value in numbers.items():
        if name.startswith("LR@") and name[3:].isdigit():
            low, high = numbers.get(f"{name} low"), numbers.get(f"{name} high")
            interval = "" if low is None or high is None else f"95 %: {low:.1f} to {high:.1f}"
            tiles.append((name, f"{value:.1f}", "%", interval))
    median = numbers.get("median_error_m")
    if median is not None:
        value, unit = metres(float(median)).split(" ")
        tiles.append(("Median error", value, unit, ""))
    if numbers.get("ceiling") is not None:
        tiles.append(("Ceiling", f"{numbers['ceiling']:.1f}", "%", "queries near a cell's centre"))
    if confidence.get("AUROC outside") is not None:
        tiles.append(
            ("Outside AUROC", f"{confidence['AUROC outside']:.2f}", "", "confidence tells outsiders")
        )
    return tiles


def _tile(name: str, value: str, unit: str, remark: str) -> str:
    small = f"<small>{escape(remark)}</small>" if remark else ""
    number = f"<dd>{escape(value)}<span>{escape(unit)}</span></dd>"
    return f'<div class="tile"><dt>{escape(name)}</dt>{number}{small}</div>'


def _comparison(caption: str, localisers: Metrics) -> str:
    """Return a row per localiser, a column per number that all of them have; intervals stay out."""
    columns = [
        name
        for name in next(iter(localisers.values()))
        if all(name in block for block in localisers.values()) and not name.endswith((" low", " high"))
    ]
    rows = [
        [_words(name), *(_text(column, block[column]) for column in columns)]
        for name, block in localisers.items()
    ]
    return table(caption, ["", *map(_words, columns)], rows)


def _breakdown(caption: str, block: Metrics) -> str:
    """Return a row per kind of query, out of entries such as "cell head LR@1" and "cell head queries"."""
    kinds = [name.removesuffix(" LR@1") for name in block if name.endswith(" LR@1")]
    rows = [
        [_words(kind), _text("LR@1", block[f"{kind} LR@1"]), _text("", block.get(f"{kind} queries"))]
        for kind in kinds
    ]
    return table(caption, ["", "LR@1, %", "queries"], rows)


def _block(caption: str, block: Metrics) -> str:
    return table(caption, ["", ""], [[_words(name), _text(name, value)] for name, value in block.items()])


def _words(name: str) -> str:
    return str(name).replace("_", " ")


def _text(name: str, value: object) -> str:
    if value is None:
        return "\u2013"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.1f}" if "LR@" in name else f"{value:,.4g}"


def _error_of(item: MapItem) -> str:
    return "no answer" if item.error_m is None else metres(item.error_m)


def _stated_of(item: MapItem) -> str:
    value = item.score if item.confidence is None else item.confidence
    return "" if value is None else f"{value:.3f}"


def _confident(items: Sequence[MapItem]) -> bool:
    return any(item.confidence is not None for item in items)
