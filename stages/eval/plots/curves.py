"""The tables behind the plots, computed from the outcomes of the queries."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stages.eval.metrics.reliability import reliability, risk_coverage
from stages.files import replacing

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

POINTS = 200
"""Largest number of rows of a curve: a plot cannot show more."""
_NOTHING = "nan"
LOCALISERS = ("classify", "retrieve", "hybrid", "sequence")
"""Columns of the curves that compare localisers: dvc.yaml names them all, whichever `eval` compares."""


@dataclass(frozen=True)
class Curve:
    """A small table for `dvc plots`; the names of the columns include their units."""

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

    def save(self, path: Path, columns: Sequence[str] = ()) -> None:
        """Write the table as CSV, atomically; `columns` that it lacks hold nan, which is not drawn."""
        absent = [name for name in columns if name not in self.columns]
        with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow((*self.columns, *absent))
            writer.writerows((*row, *[_NOTHING] * len(absent)) for row in self.rows)


def error_curve(errors: dict[str, Floats]) -> Curve:
    """Share of queries (percent) whose first answer has at most a given error (metres).

    `errors` are those of each localiser (Q,), infinite for no answer: a curve may stay below 100.
    """
    columns = ("error_m", *errors)
    ordered = {name: np.sort(values[np.isfinite(values)]) for name, values in errors.items()}
    steps = np.unique(np.concatenate([*ordered.values(), np.array([])]))
    if not len(steps):
        return Curve(columns, ())
    steps = steps[np.unique(np.linspace(0, len(steps) - 1, POINTS).round().astype(int))]
    shares = [
        100 * np.searchsorted(ordered[name], steps, side="right") / len(values)
        for name, values in errors.items()
    ]
    rows = np.stack([steps.round(2), *(share.round(3) for share in shares)], axis=1).tolist()
    return Curve(columns, tuple(tuple(row) for row in rows))


def reliability_curve(confidence: Floats | None, right: Bools) -> Curve:
    """Share of right answers (percent) by stated confidence; empty without confidences.

    `confidence` (Q,) is NaN and `right` (Q,) False for no answer.
    """
    columns = ("stated_percent", "right_percent", "queries")
    if confidence is None:
        return Curve(columns, ())
    bins = reliability(confidence, right)
    stated, hits = ((100 * share).round(3).tolist() for share in (bins.stated, bins.right))
    return Curve(columns, tuple(zip(stated, hits, bins.answers.tolist(), strict=True)))


def risk_coverage_curve(trust: Floats, right: Bools) -> Curve:
    """Share of wrong answers (percent) if only the most trusted share of the queries is answered.

    `trust` and `right` (Q,) as for `stages.eval.metrics.reliability.risk_coverage`.
    """
    columns = ("coverage_percent", "wrong_percent", "threshold")
    curve = risk_coverage(trust, right)
    if not len(curve.wrong):
        return Curve(columns, ())
    # A threshold cannot separate queries of equal trust: only the last of them is a point.
    ranks = np.flatnonzero(np.append(curve.trust[1:] != curve.trust[:-1], True))
    ranks = ranks[np.unique(np.linspace(0, len(ranks) - 1, POINTS).round().astype(int))]
    coverage = 100 * (ranks + 1) / curve.queries
    wrong = 100 * curve.wrong[ranks] / (ranks + 1)
    points = (coverage.round(3).tolist(), wrong.round(3).tolist(), curve.trust[ranks].round(5).tolist())
    return Curve(columns, tuple(zip(*points, strict=True)))


def class_size_curve(images: npt.NDArray[np.int64], right_within: dict[int, Bools]) -> Curve:
    """LR@N (percent) by the number of training images of the true cell.

    `images` (Q,) is 0 if the true cell is not a class; `right_within` tells for each N whether one of
    the first N answers is right (Q,).
    """
    columns = ("images_in_cell", "queries", *(f"LR@{top}" for top in right_within))
    rows: list[tuple[float | int | str, ...]] = []
    for label, low, high in _size_bins(images):
        inside = (images >= low) & (images <= high)
        if inside.any():
            shares = (round(100 * float(hits[inside].mean()), 3) for hits in right_within.values())
            rows.append((label, int(inside.sum()), *shares))
    return Curve(columns, tuple(rows))


def read_recall_curve(path: Path) -> Curve:
    """Return the LR@N table of an evaluation without columns of nan; empty if the file does not exist."""
    if not path.exists():
        return Curve(("n", "classify"), ())
    with path.open(newline="", encoding="utf-8") as file:
        columns, *rows = csv.reader(file)
    kept = [place for place in range(len(columns)) if not rows or rows[0][place] != _NOTHING]
    return Curve(
        tuple(columns[place] for place in kept), tuple(tuple(row[place] for place in kept) for row in rows)
    )


def _size_bins(images: npt.NDArray[np.int64]) -> Sequence[tuple[str, int, int]]:
    """Return (label, least, most) of intervals of doubling width: no class, 1, 2-3, 4-7, ...

    Spaces align the labels, because the bars of `dvc plots` are in alphabetical order.
    """
    bins = [("no class", 0, 0)]
    low, most = 1, int(images.max(initial=0))
    while low <= most:
        high = 2 * low - 1
        start = f"{low:{len(str(most))}}"
        bins.append((start if low == high else f"{start}\u2013{high}", low, high))
        low *= 2
    return bins
