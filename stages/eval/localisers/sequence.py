"""`sequence`: the photos of each session located together, as one walk."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.eval.config import EvalConfig
from stages.eval.localisers.compare import LocaliserResult, model_bytes
from stages.eval.queries import Queries
from stages.index.clock import clock_seconds
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import answer_walks
from stages.models.localiser.walk import LookAt, WalkTimes


def sequence(localiser: Localiser, queries: Queries, config: EvalConfig, look_at: LookAt) -> LocaliserResult:
    """Return positions from the evidence of all photos of a session; true positions are not used.

    Sessions are those of the manifest's column `session`; without one, all queries are one session. A query
    without a time is located alone.
    """
    times = WalkTimes(*_when(queries), look_at, config.speed_m_s)
    started = time.perf_counter()
    answers = answer_walks(
        localiser,
        queries.embedded,
        times,
        top=config.depth,
        fusion=config.fusion,
        radius_m=config.radius_m,
    )
    seconds = time.perf_counter() - started
    parts = answers.positions, seconds, model_bytes(localiser), answers.confidence
    return LocaliserResult(*parts, look_ahead=times.look_ahead)


def _when(queries: Queries) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Return time and session of each readable query."""
    known = "session" in queries.manifest.column_names
    columns = ["timestamp", *(["session"] if known else [])]
    rows = pa.array(queries.rows[queries.readable])
    table = pa.Table.from_batches(queries.manifest.batches(columns)).take(rows)
    sessions = table["session"].to_pylist() if known else [""] * len(rows)
    return clock_seconds(table["timestamp"].combine_chunks()), [str(session) for session in sessions]
