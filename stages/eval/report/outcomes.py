"""The predictions of an evaluation, as one array per column."""

from __future__ import annotations

from dataclasses import dataclass, field
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

    Without an answer, `answer` (Q, 2) and `confidence` (Q,) are NaN, `error_m` is infinite and `score`
    minus infinity. `class_ids` and `places` (metres) are the predicted classes and positions of each
    query, best first; `others` are the errors of the other localisers in metres; `walked` (Q, 2) are the
    answers of `sequence`, None without it; `cells` are the sizes of the true cells (head, mid, tail, none; ""
    if unknown).
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
    origin: dict[str, str] = field(default_factory=dict)
    walked: npt.NDArray[np.float64] | None = None
    cells: list[str] = field(default_factory=list)

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
        """Confidence, or the score if there is none (Q,); a higher value means a more certain answer."""
        return self.score if self.confidence is None else self.confidence

    @property
    def threshold(self) -> float | None:
        """Lowest confidence of an answer that was not withheld; None if none was, or for another reason."""
        given, withheld = self.answered & ~self.abstained, self.answered & self.abstained
        if self.confidence is None or not given.any() or not withheld.any():
            return None
        lowest = float(self.confidence[given].min())
        return lowest if self.confidence[withheld].max() < lowest else None

    def right_within(self, top: int) -> npt.NDArray[np.bool_]:
        """Return whether one of the first `top` answers lies within the radius (Q,)."""
        hits = [
            bool((np.hypot(*(places[:top] - truth).T) <= self.radius_m).any())
            for places, truth in zip(self.places, self.truth, strict=True)
        ]
        return np.array(hits, dtype=bool)

    @classmethod
    def load(cls, path: Path) -> Outcomes:
        """Return the content of `predictions.parquet`; confidence and runners-up may be missing there.

        Raises
        ------
        InputError
            If the file is missing or was not written by this program.
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
            origin=note.get("origin", {}),  # not in files of earlier versions
            walked=_pairs(rows, "sequence_east", "sequence_north")
            if "sequence_east" in rows.column_names
            else None,
            cells=rows["cell"].to_pylist() if "cell" in rows.column_names else [""] * rows.num_rows,
        )


def images_of_true_cell(places: Places, truth: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the number of training images in the cell of each position (Q,)."""
    # The appended 0 is for place -1: no cell.
    return np.append(places.images, 0)[places.at(truth)]


def _number(rows: pa.Table, name: str) -> npt.NDArray[np.float64]:
    return np.asarray(rows[name].to_numpy(), dtype=np.float64)


def _places(rows: pa.Table) -> list[npt.NDArray[np.float64]]:
    """Return all answers of each query; only the first if no others were written."""
    names = ("answers_east", "answers_north")
    if not set(names) <= set(rows.column_names):
        first = _pairs(rows, "predicted_east", "predicted_north")[:, None]
        return [place[np.isfinite(place[:, 0])] for place in first]
    both = zip(*(rows[name].to_pylist() for name in names), strict=True)
    pairs = (np.array([east, north], dtype=np.float64).T.reshape(-1, 2) for east, north in both)
    return [place[np.isfinite(place[:, 0])] for place in pairs]


def _pairs(rows: pa.Table, *names: Any) -> npt.NDArray[np.float64]:
    return np.stack([_number(rows, name) for name in names], axis=1)
