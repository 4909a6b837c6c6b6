"""The report stage: the files of an evaluation -> plots and one HTML page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from stages.eval.plots import curves
from stages.eval.plots.figure import Plot
from stages.eval.plots.plots import class_size_plot, error_plot, recall_plot, reliability_plot, risk_plot
from stages.eval.report.cards import make_cards
from stages.eval.report.data import ReportData, ReportInputs
from stages.eval.report.gallery import Album, chosen_queries, small_photos
from stages.eval.report.map_data import MapItem, map_data
from stages.eval.report.map_items import map_items, walk_paths
from stages.eval.report.numbers import Metrics, Numbers
from stages.eval.report.outcomes import images_of_true_cell
from stages.eval.report.page import render
from stages.eval.report.result import ReportResult
from stages.files import read_json, replacing
from stages.partition.advice import advise

__all__ = ["ReportInputs", "ReportResult", "run"]


def run(inputs: ReportInputs) -> ReportResult:
    """Draw the plots and write the page.

    Raises
    ------
    InputError
        If a file is missing or the files do not belong together.
    """
    config, data, metrics = inputs.config, ReportData.open(inputs), _read_metrics(inputs.details)
    radius_m, plots = data.outcomes.radius_m, _draw_plots(data, metrics, inputs)
    chosen = chosen_queries(data.outcomes, data.reachable, config.queries)
    items, number_on_map = map_items(data, chosen)
    album = Album(config.thumbnail_px, int(config.photos_mb * 1e6))
    cards = make_cards(data, chosen, album, number_on_map)
    items, photos = _with_photos(data, items, album)
    page = render(
        "report.html",
        data=map_data(
            data.places,
            items,
            radius_m=radius_m,
            paths=walk_paths(data),
            photos=photos,
            base=inputs.base.data(data.classes.zone, data.places.centres, data.database.positions()),
        ),
        facts=_facts(data, metrics),
        advice=advise(data.classes, data.labels, data.database, data.queries.positions(), radius_m),
        numbers=Numbers.of(metrics),
        items=items,
        queries=len(data.outcomes),
        radius_m=radius_m,
        plots=plots,
        cards=cards,
        left_out=album.left_out,
        photos_mb=config.photos_mb,
        classes_from=inputs.classes.parent.name,
    )
    with replacing(inputs.output) as partial:
        partial.write_text(page, encoding="utf-8")
    return ReportResult(
        page=inputs.output,
        page_bytes=inputs.output.stat().st_size,
        queries=len(data.outcomes),
        on_map=len(items),
        with_photos=len(cards),
        left_out=album.left_out,
        plots=len(plots),
    )


def _with_photos(data: ReportData, items: list[MapItem], album: Album) -> tuple[list[MapItem], list[str]]:
    """Return the items with the numbers of their thumbnails, and these; a card shows its query already."""
    paths = [None if item.card else data.queries.image_path(item.label) for item in items]
    photos, numbers = small_photos(album, paths)
    return [replace(item, photo=number) for item, number in zip(items, numbers, strict=True)], photos


def _read_metrics(path: Path) -> Metrics:
    metrics: Metrics = read_json(path, made_by="pipeline eval")
    return metrics


def _draw_plots(data: ReportData, metrics: Metrics, inputs: ReportInputs) -> list[Plot]:
    """Write the tables and figures of the plots; return the plots that have data."""
    outcomes, radius_m = data.outcomes, data.outcomes.radius_m
    errors = {next(iter(metrics), "classify"): outcomes.error_m, **outcomes.others}
    images = images_of_true_cell(data.places, outcomes.truth)
    tables = {
        "error_cdf": curves.error_curve(errors),
        "reliability": curves.reliability_curve(outcomes.confidence, outcomes.right),
        "by_class_size": curves.class_size_curve(images, {top: outcomes.right_within(top) for top in (1, 5)}),
        "risk_coverage": curves.risk_coverage_curve(outcomes.trust, outcomes.right),
    }
    for name, table in tables.items():
        table.save(inputs.plots / f"{name}.csv", curves.LOCALISERS if name == "error_cdf" else ())
    calibrated, threshold = outcomes.confidence is not None, outcomes.threshold
    drawn = [
        recall_plot(curves.read_recall_curve(inputs.recall_curve), radius_m),
        error_plot(tables["error_cdf"], radius_m),
        class_size_plot(tables["by_class_size"]),
        risk_plot(tables["risk_coverage"], calibrated=calibrated, threshold=threshold),
        reliability_plot(tables["reliability"]),
    ]
    plots = [plot for plot in drawn if plot is not None]
    for plot in plots:
        plot.save_png(inputs.plots / "figures")
    return plots


def _facts(data: ReportData, metrics: Metrics) -> list[str]:
    """Return what was evaluated, for the line below the title."""
    first: dict[str, Any] = next(iter(metrics.values()), {})
    classes, places = data.classes, data.places
    least, most = places.cell_m, places.cell_m * int(places.span.max(initial=1))
    side = f"{least:g} m" if most == least else f"{least:g} to {most:g} m"
    told = "" if places.votes is None else f", told apart by {len(classes):,} classes"
    facts = [
        f"{len(data.outcomes):,} queries",
        f"{data.database.rows:,} database images",
        f"{len(places):,} cells of {side}{told} in {classes.groups} groups",
        f"UTM zone {classes.zone or 'unknown'}",
    ]
    return facts + [f"{name} {first[name]}" for name in ("score", "weights") if name in first]
