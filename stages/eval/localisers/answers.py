"""The answers of all localisers to the queries of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stages.eval.config import EvalConfig
from stages.eval.localisers.compare import LocaliserResult, cell_ranking, compare
from stages.eval.localisers.database import Database
from stages.eval.localisers.sequence import sequence
from stages.eval.queries import Queries
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import Predictions
from stages.models.localiser.recall import errors_m

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class QueryAnswers:
    """The answers to all queries, including unreadable ones.

    Attributes
    ----------
    cells : Predictions
        Single classes, best first; -1 for an unreadable query.
    results : dict of str to LocaliserResult
        By localiser; NaN for an unreadable query.
    errors_m : dict of str to ndarray of float64, shape (Q, top)
        By localiser; infinite for no answer.
    """

    cells: Predictions
    results: dict[str, LocaliserResult]
    errors_m: dict[str, Floats]

    @classmethod
    def of(
        cls,
        localiser: Localiser,
        database: Database | None,
        queries: Queries,
        config: EvalConfig,
        folder: Path,
    ) -> QueryAnswers:
        """Return the answers of the configured localisers; `folder` as for `compare`."""
        cells = cell_ranking(localiser, queries.embedded, config)
        compared = compare(localiser, database, queries.embedded, config, folder)
        if config.sequence != "none":
            compared["sequence"] = sequence(localiser, queries, config, config.sequence)
        shared = queries.embedded.seconds  # each would have to embed the queries by itself
        results = {
            name: replace(result, seconds=result.seconds + shared).for_all(queries.readable)
            for name, result in compared.items()
        }
        errors = {name: errors_m(result.positions, queries.truth) for name, result in results.items()}
        return cls(_cells_for_all(cells, queries.readable), results, errors)

    def confidence(self, name: str) -> Floats:
        """Return the confidence of a localiser (Q,): 0 for an unreadable query, NaN if it is unknown."""
        confidence = self.results[name].confidence
        return np.full(len(self.cells.class_id), np.nan) if confidence is None else confidence

    @property
    def abstain(self) -> Bools:
        """Whether `classify` withholds its answer, (Q,)."""
        abstain = self.results["classify"].abstain
        return np.zeros(len(self.cells.class_id), np.bool_) if abstain is None else abstain


def _cells_for_all(cells: Predictions, readable: Bools) -> Predictions:
    shape = (len(readable), cells.class_id.shape[1])
    class_id, score = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
    positions = np.full((*shape, 2), np.nan)
    class_id[readable], score[readable], positions[readable] = cells.class_id, cells.score, cells.positions
    return Predictions(class_id, score, positions)
