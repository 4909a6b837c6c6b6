"""Names and values as people read them."""

from __future__ import annotations

import math

from stages.files import printable

_LABELS = {
    "median_error_m": "median error, m",
    "radius_m": "radius, m",
    "skipped_at_index": "queries left out by pipeline index",
    "resampled": "resampled for intervals",
    "units": "independent units",
    "near_cell": "queries near a cell's centre, %",
    "index_bytes": "index size, bytes",
    "ECE": "expected calibration error, %",
    "mean": "mean confidence, %",
    "AUROC right": "AUROC, right against wrong answers",
    "AUROC outside": "AUROC, known against unknown places",
    "outside queries": "queries from unknown places",
    "abstained": "abstained, %",
    "abstained right": "withheld of the right answers, %",
    "abstained outside": "abstained at unknown places, %",
    "risk at 50 %": "wrong at 50 % coverage, %",
    "risk at 80 %": "wrong at 80 % coverage, %",
    "AURC": "area under the risk-coverage curve",
    "cell head": "in a head cell",
    "cell mid": "in a mid cell",
    "cell tail": "in a tail cell",
    "cell none": "in no trained cell",
}
"""Readable names of entries of details.json; others are shown as they are."""


def metres(length_m: float | None) -> str:
    """Return an error with its unit, "no answer" if it is None or not finite."""
    if length_m is None or not math.isfinite(length_m):
        return "no answer"
    if length_m >= 1000:
        return f"{length_m / 1000:,.1f} km"
    return f"{length_m:.0f} m" if length_m >= 10 else f"{length_m:.1f} m"


def label(name: str) -> str:
    """Return the readable name of an entry of details.json."""
    return _LABELS.get(name, name.replace("_", " "))


def number(value: object, name: str) -> str:
    """Return the value of an entry of details.json as text."""
    if value is None:
        return "\u2013"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.1f}" if "LR@" in name else f"{value:,.4g}"
