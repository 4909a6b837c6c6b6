"""Outcomes of the queries -> the tables behind the plots; pure arithmetic."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stages.files import replacing

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

POINTS = 200
"""Rows of a curve at most: more than a plot can show is of no use to anybody."""


@dataclass(frozen=True)
class Curve:
    """A small table: columns of equal length, as `dvc plots` reads them.

    Attributes
    ----------
    columns : tuple of str
        Names, units included.
    rows : tuple of tuple
        Numbers or labels.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[float | int | str, ...], ...]

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> list[float | int | str]:
        """Return one column."""
        number = self.columns.index(name)
        return [row[number] for row in self.rows]

    def numbers(self, name: str) -> Floats:
        """Return one column as numbers."""
        return np.array(self.column(name), dtype=np.float64)

    def save(self, path: Path) -> None:
        """Write the table as CSV, atomically."""
        with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows(self.rows)


def error_cdf(errors: dict[str, Floats]) -> Curve:
    """Share of queries (percent) whose first answer is off by no more than so many metres.

    Parameters
    ----------
    errors : dict of str to ndarray of float64, shape (Q,)
        Metres, by localiser; infinite where there is no answer, so that a curve need not reach 100.
    """
    columns = ("error_m", *errors)
    ordered = {name: np.sort(values[np.isfinite(values)]) for name, values in errors.items()}
    places = np.unique(np.concatenate([*ordered.values(), np.array([])]))
    if not len(places):
        return Curve(columns, ())
    places = places[np.unique(np.linspace(0, len(places) - 1, POINTS).round().astype(int))]
    shares = [
        100 * np.searchsorted(ordered[name], places, side="right") / len(values)
        for name, values in errors.items()
    ]
    rows = np.stack([places.round(2), *(share.round(3) for share in shares)], axis=1).tolist()
    return Curve(columns, tuple(tuple(row) for row in rows))


def reliability(confidence: Floats | None, right: Bools, *, bins: int = 10) -> Curve:
    """How often answers of a stated confidence are right: what is said against what is.

    Parameters
    ----------
    confidence : ndarray of float64, shape (Q,), or None
        Within 0 and 1; NaN where there is no answer. None: an empty table.
    right : ndarray of bool, shape (Q,)
        Whether the answer is right.
    bins : int
        Intervals of equal width; empty ones are left out.
    """
    columns = ("stated_percent", "right_percent", "queries")
    if confidence is None:
        return Curve(columns, ())
    known = np.isfinite(confidence)
    stated, hit = confidence[known], right[known]
    place = np.clip((stated * bins).astype(int), 0, bins - 1)
    rows = []
    for number in np.unique(place):
        inside = place == number
        means = (100 * float(stated[inside].mean()), 100 * float(hit[inside].mean()))
        rows.append((round(means[0], 3), round(means[1], 3), int(inside.sum())))
    return Curve(columns, tuple(rows))


def calibration_error(curve: Curve) -> float:
    """Return the expected calibration error of a reliability table in percentage points."""
    if not len(curve):
        return float("nan")
    weights = curve.numbers("queries")
    gaps = np.abs(curve.numbers("stated_percent") - curve.numbers("right_percent"))
    return float((gaps * weights).sum() / weights.sum())


def risk_coverage(trust: Floats, right: Bools) -> Curve:
    """Share of wrong answers (percent) when only the surest share of queries (percent) is answered.

    Parameters
    ----------
    trust : ndarray of float64, shape (Q,)
        Confidence or score; not finite where there is no answer, which is then never given.
    right : ndarray of bool, shape (Q,)
        Whether the answer is right.
    """
    columns = ("coverage_percent", "wrong_percent", "threshold")
    known = np.flatnonzero(np.isfinite(trust))
    if not len(known):
        return Curve(columns, ())
    order = known[np.argsort(-trust[known], kind="stable")]
    wrong = 100 * np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    # Equal trust cannot be told apart by a threshold: only the last of such queries is a point.
    last = np.append(trust[order][1:] != trust[order][:-1], True)
    ranks = np.flatnonzero(last)
    ranks = ranks[np.unique(np.linspace(0, len(ranks) - 1, POINTS).round().astype(int))]
    coverage = 100 * (ranks + 1) / len(trust)
    return Curve(
        columns,
        tuple(
            zip(
                coverage.round(3).tolist(),
                wrong[ranks].round(3).tolist(),
                trust[order][ranks].round(5).tolist(),
                strict=True,
            )
        ),
    )


def by_class_size(images: npt.NDArray[np.int64], right_within: dict[int, Bools]) -> Curve:
    """LR@N (percent) of queries by how many training images the cell they were taken in has.

    Parameters
    ----------
    images : ndarray of int64, shape (Q,)
        Training images of each query's true cell; 0 if that is no class.
    right_within : dict of int to ndarray of bool, shape (Q,)
        N -> whether one of the first N answers is right.
    """
    columns = ("images_in_cell", "queries", *(f"LR@{top}" for top in right_within))
    rows: list[tuple[float | int | str, ...]] = []
    for label, low, high in _size_bins(images):
        inside = (images >= low) & (images <= high)
        if inside.any():
            shares = (round(100 * float(hits[inside].mean()), 3) for hits in right_within.values())
            rows.append((label, int(inside.sum()), *shares))
    return Curve(columns, tuple(rows))


def read_recall(path: Path) -> Curve:
    """Return the LR@N table that evaluation wrote, empty if there is none."""
    if not path.exists():
        return Curve(("n", "classify"), ())
    with path.open(newline="", encoding="utf-8") as file:
        columns, *rows = csv.reader(file)
    return Curve(tuple(columns), tuple(tuple(row) for row in rows))


def _size_bins(images: npt.NDArray[np.int64]) -> Sequence[tuple[str, int, int]]:
    """Return (label, least, most) of intervals that double: no class, 1, 2-3, 4-7, ..."""
    bins = [("no class", 0, 0)]
    low = 1
    while low <= int(images.max(initial=0)):
        high = 2 * low - 1
        bins.append((f"{low}" if low == high else f"{low}\u2013{high}", low, high))
        low *= 2
    return bins
