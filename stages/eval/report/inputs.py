"""Everything that the report is made of, opened and found to fit together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import KDTree

from stages.errors import InputError
from stages.eval.report.config import ReportConfig
from stages.eval.report.outcomes import Outcomes
from stages.index.manifest import Manifest
from stages.partition.classes import ClassTable
from stages.partition.places import Places


@dataclass(frozen=True)
class ReportInputs:
    """Everything that the report is made of.

    Attributes
    ----------
    config : ReportConfig
        How many photos.
    outcomes : Outcomes
        All queries.
    reachable : ndarray of bool, shape (Q,)
        Whether any cell could have been right.
    classes : ClassTable
        What the heads tell apart.
    places : Places
        The cells that answers name.
    queries, database : Manifest
        Where photos are.
    labels : ndarray of int
        Place of every database row, -1 for none.
    query_row : ndarray of int64, shape (Q,)
        Row of each query in its manifest.
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


def open_source(
    config: ReportConfig, predictions: Path, classes: Path, labels: Path, database: Path, queries: Path
) -> ReportInputs:
    """Return what the report is made of, once its parts are known to belong together.

    Raises
    ------
    InputError
        If a file is missing or does not fit the others.
    """
    outcomes, table = Outcomes.load(predictions), ClassTable.load(classes)
    places = Places.of(table)
    known, seen = Manifest.open(database), Manifest.open(queries)
    try:
        label: npt.NDArray[np.integer] = np.load(labels, mmap_mode="r")
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{labels} cannot be read ({error}): run `pipeline partition`") from error
    largest = max((int(ids.max()) for ids in outcomes.class_ids if len(ids)), default=-1)
    row_of = {key: row for row, key in enumerate(seen.keys(0, seen.rows))}
    query_row = np.array([row_of.get(key, -1) for key in outcomes.key], dtype=np.int64)
    if (query_row < 0).any() or len(label) != known.rows or largest >= len(places):
        raise InputError(
            f"{predictions} ({len(outcomes)} queries, {(query_row < 0).sum()} of them unknown, cells up to "
            f"{largest}) does not fit {queries} ({seen.rows} rows), {database} ({known.rows} rows, "
            f"{len(label)} labels) and {classes} ({len(places)} cells): run `dvc repro`"
        )
    reachable = np.zeros(len(outcomes), dtype=bool)
    if places.votes is not None:
        label = places.at(known.positions())
    if len(places) and len(outcomes):
        distance = KDTree(places.centres).query(outcomes.truth)[0][:, 0]
        reachable = distance <= outcomes.radius_m
    return ReportInputs(config, outcomes, reachable, table, places, seen, known, label, query_row)
