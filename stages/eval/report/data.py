"""The files behind a report, opened and checked against each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import KDTree

from stages.errors import InputError
from stages.eval.report.base_map import BaseMap
from stages.eval.report.config import ReportConfig
from stages.eval.report.outcomes import Outcomes
from stages.files import sha256_of
from stages.index.manifest import Manifest
from stages.partition.classes import ClassTable, load_labels
from stages.partition.identity import are_of
from stages.partition.places import Places


@dataclass(frozen=True)
class ReportInputs:
    """The settings and files of a report.

    `predictions`, `details` and `recall_curve` are written by evaluation; `labels` hold the class of
    every database row; `database` and `queries` are manifests. `output` is the page to write, `plots` a
    folder for the plots' data (CSV) and, in its folder `figures`, the figures (PNG). `base` lies below the
    map.
    """

    config: ReportConfig
    predictions: Path
    details: Path
    recall_curve: Path
    classes: Path
    labels: Path
    database: Path
    queries: Path
    output: Path
    plots: Path
    base: BaseMap = field(default_factory=BaseMap)


@dataclass(frozen=True)
class ReportData:
    """The content of a report.

    `reachable` (Q,) tells whether a cell's centre lies within the radius of the truth, `labels` the place
    of every database row (-1: none), `query_row` (Q,) the row of each query in its manifest.
    """

    config: ReportConfig
    outcomes: Outcomes
    reachable: npt.NDArray[np.bool_]
    classes: ClassTable
    places: Places
    queries: Manifest
    database: Manifest
    labels: npt.NDArray[np.integer]
    query_row: npt.NDArray[np.int64]

    @classmethod
    def open(cls, inputs: ReportInputs) -> ReportData:
        """Return the content of the files.

        Raises
        ------
        InputError
            If a file is missing or does not fit the others.
        """
        outcomes, classes = Outcomes.load(inputs.predictions), ClassTable.load(inputs.classes)
        places = Places.of(classes)
        database, queries = Manifest.open(inputs.database), Manifest.open(inputs.queries)
        labels: npt.NDArray[np.integer] = load_labels(inputs.labels)
        row_of = {key: row for row, key in enumerate(queries.keys(0, queries.rows))}
        query_row = np.array([row_of.get(key, -1) for key in outcomes.key], dtype=np.int64)
        largest = max((int(ids.max()) for ids in outcomes.class_ids if len(ids)), default=-1)
        unknown = int((query_row < 0).sum())
        if unknown or len(labels) != database.rows or largest >= len(places):
            raise InputError(
                f"{inputs.predictions} ({len(outcomes)} queries, {unknown} of them unknown, cells up to "
                f"{largest}) does not fit {inputs.queries} ({queries.rows} rows), {inputs.database} "
                f"({database.rows} rows, {len(labels)} labels) and {inputs.classes} ({len(places)} cells): "
                "run `dvc repro`"
            )
        if not are_of(classes, database, labels):
            raise InputError(
                f"{inputs.classes} was made with other files than {inputs.labels} and {inputs.database}, "
                "which changed since: run `pipeline train-heads` and `pipeline eval`, or `dvc repro`"
            )
        _require_one_evaluation(inputs, outcomes, queries, classes)
        if places.votes is not None:
            labels = places.at(database.positions())
        reachable = np.zeros(len(outcomes), dtype=bool)
        if len(places) and len(outcomes):
            distance_m = KDTree(places.centres).query(outcomes.truth)[0][:, 0]
            reachable = distance_m <= outcomes.radius_m
        return cls(inputs.config, outcomes, reachable, classes, places, queries, database, labels, query_row)


def _require_one_evaluation(
    inputs: ReportInputs, outcomes: Outcomes, queries: Manifest, classes: ClassTable
) -> None:
    """Raise InputError unless details, curve and predictions come from one evaluation of these queries."""
    for file in (inputs.details, inputs.recall_curve):
        if not file.exists():
            raise InputError(f"{file} does not exist: run `pipeline eval`")
    digests = {
        inputs.details: ("details", sha256_of(inputs.details)),
        inputs.recall_curve: ("curve", sha256_of(inputs.recall_curve)),
        inputs.queries: ("queries", queries.digest),
        inputs.classes: ("partition", classes.origin.get("partition", "")),
    }
    for file, (name, digest) in digests.items():
        if outcomes.origin.get(name, digest) != digest:
            raise InputError(
                f"{file} does not belong to {inputs.predictions}, or changed since: run `pipeline eval` again"
            )
