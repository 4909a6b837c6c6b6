"""What evaluation said of every query, as arrays; columns that an evaluation did not write are absent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.files import note_of, open_parquet
from stages.partition.places import Places

_MADE_BY = "pipeline eval"
_ERROR = "_error_m"


@dataclass(frozen=True)
class Outcomes:
    """One entry per query, in manifest order.

    Attributes
    ----------
    key : list of str
        Names.
    truth, answer : ndarray of float64, shape (Q, 2)
        UTM east and north in metres; an answer is NaN where there is none.
    error_m : ndarray of float64, shape (Q,)
        Infinite where there is no answer.
    score : ndarray of float64, shape (Q,)
        Of the answer; minus infinity where there is none.
    confidence : ndarray of float64, shape (Q,), or None
        Probability that the answer is right; NaN where there is none.
    abstained : ndarray of bool, shape (Q,)
        Whether the answer was withheld.
    class_ids : list of ndarray of int64
        Predicted classes of each query, best first, those that exist.
    places : list of ndarray of float64, shape (n, 2)
        Answers of each query in metres, best first, those that exist.
    others : dict of str to ndarray of float64, shape (Q,)
        Errors in metres of the localisers that were compared with this one, by name.
    radius_m : float
        Within which an answer is right.
    """

    key: list[str]
    truth: npt.NDArray[np.float64]
    answer: npt.NDArray[np.float64]
    error_m: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64] | None
    abstained: npt.NDArray[np.bool_]
    class_ids: list[npt.NDArray[np.int64]]
    places: list[npt.NDArray[np.float64]]
    others: dict[str, npt.NDArray[np.float64]]
    radius_m: float

    def __len__(self) -> int:
        return len(self.key)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether the first answer lies within the radius (Q,)."""
        return self.error_m <= self.radius_m

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """Whether the query could be read and got an answer (Q,)."""
        return np.isfinite(self.error_m)

    @property
    def trust(self) -> npt.NDArray[np.float64]:
        """What answers can be ranked by, the surest highest: the confidence if there is one (Q,)."""
        return self.score if self.confidence is None else self.confidence

    @classmethod
    def load(cls, path: Path) -> Outcomes:
        """Return what `predictions.parquet` holds.

        Raises
        ------
        InputError
            If the file is missing or none of this program's.
        """
        with open_parquet(path, made_by=_MADE_BY) as file:
            note = note_of(file, path, made_by=_MADE_BY)
            rows: pa.Table = file.read()
        confidence = _number(rows, "confidence") if "confidence" in rows.column_names else None
        error_m = _number(rows, "error_m")
        if confidence is not None:
            confidence = np.where(np.isfinite(error_m), confidence, np.nan)
        if confidence is None or np.isnan(confidence).all():
            confidence = None
        abstained = np.zeros(rows.num_rows, dtype=bool)
        if "abstain" in rows.column_names and confidence is not None:
            abstained = np.asarray(rows["abstain"].to_numpy(), dtype=bool)
        class_ids = [np.asarray(ids, dtype=np.int64) for ids in rows["class_ids"].to_pylist()]
        return cls(
            key=rows["key"].to_pylist(),
            truth=_pairs(rows, "utm_east", "utm_north"),
            answer=_pairs(rows, "predicted_east", "predicted_north"),
            error_m=error_m,
            score=_number(rows, "score"),
            confidence=confidence,
            abstained=abstained,
            class_ids=[ids[ids >= 0] for ids in class_ids],
            places=_places(rows),
            others={
                name.removesuffix(_ERROR): _number(rows, name)
                for name in rows.column_names
                if name.endswith(_ERROR)
            },
            radius_m=float(note["radius_m"]),
        )


def images_of_true_cell(places: Places, truth: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return how many training images the cell of each position has (Q,); 0 where there are none."""
    # One more for place -1.
    return np.append(places.images, 0)[places.at(truth)]


def _number(rows: pa.Table, name: str) -> npt.NDArray[np.float64]:
    return np.asarray(rows[name].to_numpy(), dtype=np.float64)


def _places(rows: pa.Table) -> list[npt.NDArray[np.float64]]:
    """Return all answers of each query; the first alone where no others were written."""
    names = ("answers_east", "answers_north")
    if not set(names) <= set(rows.column_names):
        first = _pairs(rows, "predicted_east", "predicted_north")[:, None]
        return [place[np.isfinite(place[:, 0])] for place in first]
    both = zip(*(rows[name].to_pylist() for name in names), strict=True)
    pairs = (np.array([east, north], dtype=np.float64).T.reshape(-1, 2) for east, north in both)
    return [place[np.isfinite(place[:, 0])] for place in pairs]


def _pairs(rows: pa.Table, *names: Any) -> npt.NDArray[np.float64]:
    return np.stack([_number(rows, name) for name in names], axis=1)
