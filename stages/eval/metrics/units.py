"""The units of queries that are independent of each other: sessions, or bursts of photos.

Photos of one stop share their GPS fix, light and view, so they are right or wrong together. Intervals and
tests that count each of them are too optimistic. On campus photos, correctness correlates (0.1 to 0.2)
between photos up to 10 m and 1 minute apart and hardly beyond; standard errors by burst are 1.3 to 1.5 times
those of independent queries, and any distance between 2 and 20 m gives about the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stages.index.clock import clock_seconds
from stages.index.manifest import Manifest

Ints = npt.NDArray[np.int64]

BURST_M, BURST_S = 10.0, 60.0
LEAST_SESSIONS = 20
"""With fewer sessions, resampling them gives intervals that are far too narrow; bursts are resampled then."""


@dataclass(frozen=True)
class SamplingUnits:
    """The independent unit of each query: `number` (Q,) counts from 0."""

    kind: Literal["session", "burst", "query"]
    number: Ints

    @property
    def count(self) -> int:
        """Number of units."""
        return int(self.number.max(initial=-1)) + 1

    @classmethod
    def of(cls, manifest: Manifest, rows: Ints) -> SamplingUnits:
        """Return the units of some rows: sessions if there are enough, else bursts, else single queries."""
        columns = ["utm_east", "utm_north", "timestamp"]
        columns += ["session"] if "session" in manifest.column_names else []
        table = pa.Table.from_batches(manifest.batches(columns)).take(pa.array(rows))
        if "session" in table.column_names:
            session = _codes(table["session"])
            known = pc.not_equal(table["session"].cast(pa.string()), "").to_numpy()
            if known.all() and session.max(initial=-1) + 1 >= LEAST_SESSIONS:
                return cls("session", session)
        else:
            session = np.zeros(len(rows), np.int64)
        number = bursts(np.stack([table["utm_east"], table["utm_north"]], 1), table["timestamp"], session)
        alone = number.max(initial=-1) + 1 == len(rows)
        return cls("query" if alone else "burst", number)


def bursts(positions: npt.NDArray[np.float64], timestamp: pa.ChunkedArray, session: Ints) -> Ints:
    """Return the number of each photo's burst (n,).

    A burst starts with a photo and holds those of the same session that follow within `BURST_M` of it, each
    within `BURST_S` of the one before. Where the time of day is unknown, photos of the same session and date
    form a burst if they lie in one square of side `BURST_M`.
    """
    text = timestamp.cast(pa.string()).combine_chunks()
    seconds = clock_seconds(text)
    timed = np.isfinite(seconds)
    number, rest = np.zeros(len(positions), np.int64), np.flatnonzero(~timed)
    squares = np.floor(positions[rest] / BURST_M).astype(np.int64)
    keys = np.column_stack([session[rest], _codes(text.take(pa.array(rest))), squares])
    number[rest] = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
    first = int(number[rest].max(initial=-1)) + 1
    number[timed] = first + _timed_bursts(positions[timed], seconds[timed], session[timed])
    return number


def _timed_bursts(
    positions: npt.NDArray[np.float64], seconds: npt.NDArray[np.float64], session: Ints
) -> Ints:
    order = np.lexsort((seconds, session))
    number, burst = np.zeros(len(order), np.int64), -1
    last_walk, last_second, east, north = -1, 0.0, 0.0, 0.0
    columns = (session[order].tolist(), seconds[order].tolist(), positions[order].tolist())
    for row, walk, second, (x, y) in zip(order, *columns, strict=True):
        near = (x - east) ** 2 + (y - north) ** 2 <= BURST_M**2
        if not near or walk != last_walk or second - last_second > BURST_S:
            burst, east, north = burst + 1, x, y
        number[row], last_walk, last_second = burst, walk, second
    return number


def _codes(column: Any) -> Ints:
    """Return a number from 0 for each value of a text column (n,)."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    text = pc.fill_null(column.cast(pa.string()), "")
    codes: Ints = text.dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes
