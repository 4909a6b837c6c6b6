"""The whole report: what evaluation wrote in, the page and the plots out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.errors import InputError
from stages.eval.plots import curves
from stages.eval.plots.curves import Curve
from stages.eval.plots.figure import Plot
from stages.eval.plots.plots import class_size_plot, error_plot, recall_plot, reliability_plot, risk_plot
from stages.eval.report import sections
from stages.eval.report.cards import cards_html
from stages.eval.report.config import ReportConfig
from stages.eval.report.gallery import Album, chosen_queries
from stages.eval.report.inputs import ReportInputs, open_source
from stages.eval.report.map_items import map_items
from stages.eval.report.map_view import map_data
from stages.eval.report.outcomes import Outcomes, images_of_true_cell
from stages.eval.report.page import document
from stages.files import replacing


@dataclass(frozen=True)
class ReportResult:
    """What the report holds.

    Attributes
    ----------
    page : Path
        The HTML file.
    page_bytes : int
        Its size.
    queries, on_map, with_photos : int
        All queries, those on the map, those with a card of photos.
    left_out : int
        Photos that the budget had no room for.
    plots : int
        Plots drawn.
    """

    page: Path
    page_bytes: int
    queries: int
    on_map: int
    with_photos: int
    left_out: int
    plots: int

    def facts(self) -> list[tuple[str, object]]:
        """Return (name, value) pairs for a person to read."""
        return [
            ("page", str(self.page)),
            ("size, MB", round(self.page_bytes / 1e6, 2)),
            ("queries", self.queries),
            ("on the map", self.on_map),
            ("with photos", self.with_photos),
            ("photos left out", self.left_out),
            ("plots", self.plots),
        ]


def run(
    config: ReportConfig,
    *,
    predictions: Path,
    metrics: Path,
    recall_curve: Path,
    classes: Path,
    labels: Path,
    database: Path,
    queries: Path,
    output: Path,
    plots: Path,
) -> ReportResult:
    """Draw the plots and write the page.

    Parameters
    ----------
    config : ReportConfig
        How much to show.
    predictions, metrics, recall_curve : Path
        What evaluation wrote: one row per query, the numbers, LR@N over N.
    classes, labels : Path
        The classes table, and the class of every database row.
    database, queries : Path
        The manifests.
    output : Path
        The page.
    plots : Path
        Folder of the plots' data (CSV); the figures go into its folder `figures` (PNG).

    Raises
    ------
    InputError
        If a file is missing or they do not belong together.
    """
    source = open_source(config, predictions, classes, labels, database, queries)
    numbers = _read_metrics(metrics)
    drawn = _plots(source, numbers, curves.read_recall(recall_curve), plots)
    chosen = chosen_queries(source.outcomes, source.reachable, config.queries)
    items, number_on_map = map_items(source, chosen)
    album = Album(config.thumbnail_px, int(config.photos_mb * 1e6))
    cards = cards_html(source, chosen, album, number_on_map)
    outcomes = source.outcomes
    body = "".join(
        [
            sections.header_html("Where the photos were placed", _facts(source, numbers)),
            "<main>",
            sections.numbers_html(numbers),
            sections.map_section(items, total=len(outcomes), radius_m=outcomes.radius_m),
            sections.plots_html(drawn),
            sections.photos_html(cards, left_out=album.left_out, budget_mb=config.photos_mb),
            "</main>",
            sections.footer_html(
                ["made by placecache", f"classes from {classes.parent.name}", "positions in UTM metres"]
            ),
        ]
    )
    page = document(
        "placecache report", body, data=map_data(source.places, items, radius_m=outcomes.radius_m)
    )
    with replacing(output) as partial:
        partial.write_text(page, encoding="utf-8")
    return ReportResult(
        page=output,
        page_bytes=output.stat().st_size,
        queries=len(outcomes),
        on_map=len(items),
        with_photos=len(chosen),
        left_out=album.left_out,
        plots=len(drawn),
    )


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        numbers: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: run `pipeline eval`") from None
    return numbers


def _plots(source: ReportInputs, numbers: dict[str, Any], recall: Curve, folder: Path) -> list[Plot]:
    """Write the plots' data and figures; return those plots that there is data for."""
    outcomes = source.outcomes
    calibrated = outcomes.confidence is not None
    tables = {
        "error_cdf": curves.error_cdf({next(iter(numbers), "classify"): outcomes.error_m, **outcomes.others}),
        "reliability": curves.reliability(outcomes.confidence, outcomes.right),
        "by_class_size": curves.by_class_size(
            images_of_true_cell(source.places, outcomes.truth), _right_within(outcomes)
        ),
        "risk_coverage": curves.risk_coverage(outcomes.trust, outcomes.right),
    }
    for name, table in tables.items():
        table.save(folder / f"{name}.csv")
    drawn = [
        recall_plot(recall, outcomes.radius_m),
        error_plot(tables["error_cdf"], outcomes.radius_m),
        class_size_plot(tables["by_class_size"]),
        risk_plot(tables["risk_coverage"], calibrated=calibrated, threshold=_threshold(outcomes)),
        reliability_plot(tables["reliability"]),
    ]
    plots = [plot for plot in drawn if plot is not None]
    for plot in plots:
        plot.save_png(folder / "figures")
    return plots


def _right_within(outcomes: Outcomes) -> dict[int, npt.NDArray[np.bool_]]:
    """Whether the first, or one of the first five answers lies within the radius."""
    within = {}
    for top in (1, 5):
        hits = [
            bool((np.hypot(*(places[:top] - truth).T) <= outcomes.radius_m).any())
            for places, truth in zip(outcomes.places, outcomes.truth, strict=True)
        ]
        within[top] = np.array(hits, dtype=bool)
    return within


def _threshold(outcomes: Outcomes) -> float | None:
    """The least confidence of an answer that was not withheld; None if none was withheld."""
    given = outcomes.answered & ~outcomes.abstained
    if outcomes.confidence is None or not given.any() or not outcomes.abstained.any():
        return None
    return float(outcomes.confidence[given].min())


def _facts(source: ReportInputs, metrics: dict[str, Any]) -> list[str]:
    """What was evaluated, in a line."""
    first: dict[str, Any] = next(iter(metrics.values()), {})
    classes, places = source.classes, source.places
    least, most = places.cell_m, places.cell_m * int(places.span.max(initial=1))
    side = f"{least:g} m" if most == least else f"{least:g} to {most:g} m"
    told = "" if places.votes is None else f", told apart by {len(classes):,} classes"
    facts = [
        f"{len(source.outcomes):,} queries",
        f"{source.database.rows:,} database images",
        f"{len(places):,} cells of {side}{told} in {classes.groups} groups",
        f"UTM zone {classes.zone or 'unknown'}",
    ]
    facts += [f"{name} {first[name]}" for name in ("score", "weights") if name in first]
    return facts
