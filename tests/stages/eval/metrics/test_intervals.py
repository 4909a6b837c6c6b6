"""Intervals of LR@N, and the independent units that they resample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binomtest

from stages.eval.metrics.intervals import intervals
from stages.eval.metrics.units import LEAST_SESSIONS, SamplingUnits
from stages.index.manifest_writer import write_manifest

RIGHT, WRONG = 1.0, 99.0


def units(number, kind="burst"):
    return SamplingUnits(kind, np.asarray(number))


def alone(count):
    return units(np.arange(count), "query")


def manifest(path, east, timestamps, **columns):
    batch = pa.record_batch({
        "key": pa.array([f"{row}.jpg" for row in range(len(east))]),
        "utm_east": pa.array([500_000.0 + x for x in east]),
        "utm_north": pa.array([4_000_000.0] * len(east)),
        "heading": pa.array([0.0] * len(east), pa.float32()),
        "timestamp": pa.array(timestamps),
        **{name: pa.array(values) for name, values in columns.items()},
    })  # fmt: skip
    return write_manifest(path, [batch], root=Path("/nowhere"), zone="10S", source="csv")


def units_of(path, east, timestamps, **columns):
    return SamplingUnits.of(manifest(path, east, timestamps, **columns), np.arange(len(east)))


def same(number):
    """Each photo's first companion: equal for equal groupings, whatever their numbers."""
    return [number.tolist().index(one) for one in number]


def test_a_burst_shares_place_and_moment(tmp_path):
    clock = ["10:00:00", "10:00:03", "10:00:50", "10:02:00", "10:02:05", "10:02:06"]
    times = [f"2025-12-22T{time}" for time in clock]
    found = units_of(tmp_path / "m.parquet", [0, 1, 9, 9, 9, 25], times)
    assert found.kind == "burst"
    assert same(found.number) == [0, 0, 0, 3, 3, 5]  # 70 s later, then 16 m away
    assert found.count == 3


def test_bursts_do_not_depend_on_the_order_of_rows(tmp_path):
    random = np.random.default_rng(0)
    east = random.uniform(0, 60, 80)
    times = np.datetime64("2025-12-22T10:00:00") + random.permutation(800)[:80].astype("timedelta64[s]")
    first = units_of(tmp_path / "a.parquet", east, times.astype(str).tolist())
    order = random.permutation(80)
    other = units_of(tmp_path / "b.parquet", east[order], times[order].astype(str).tolist())
    together = first.number[:, None] == first.number
    assert 5 < first.count < 75
    np.testing.assert_array_equal(other.number[:, None] == other.number, together[order][:, order])


def test_a_burst_holds_no_two_sessions(tmp_path):
    times = ["2025-12-22 10:00:00"] * 3
    found = units_of(tmp_path / "m.parquet", [0, 0, 0], times, session=["a", "b", "a"])
    assert found.kind == "burst"
    assert same(found.number) == [0, 1, 0]


def test_photos_without_time_of_day_share_a_square(tmp_path):
    east, times = [1, 4, 4, 11, 1], ["", "", "2025-12-22", "", "2025-13-45T99:00:00"]
    found = units_of(tmp_path / "m.parquet", east, times)
    assert same(found.number) == [0, 0, 2, 3, 4]


def test_photos_far_apart_are_independent(tmp_path):
    found = units_of(tmp_path / "m.parquet", [0, 50, 100], ["202010"] * 3)
    assert (found.kind, found.count) == ("query", 3)


def test_sessions_are_resampled_if_there_are_enough(tmp_path):
    count = 2 * LEAST_SESSIONS
    times = [f"2025-12-22T10:{row:02}:00" for row in range(count)]
    sessions = [f"walk {row // 2}" for row in range(count)]
    found = units_of(tmp_path / "m.parquet", range(count), times, session=sessions)
    assert (found.kind, found.count) == ("session", LEAST_SESSIONS)
    assert same(found.number) == [row - row % 2 for row in range(count)]
    few = units_of(tmp_path / "f.parquet", range(count), times, session=[*sessions[2:], *sessions[2:4]])
    assert few.kind != "session"
    unknown = units_of(tmp_path / "u.parquet", range(count), times, session=[*sessions[:-2], "", ""])
    assert unknown.kind != "session"


def test_twenty_of_twenty_right_are_not_certain():
    errors = np.full((20, 1), RIGHT)
    assert intervals(errors, 25.0, (1,), alone(20), 500, 0)[1] == pytest.approx((83.157, 100), abs=0.01)
    low, high = intervals(errors, 25.0, (1,), units(np.arange(20) // 4), 500, 0)[1]
    assert (low, high) == pytest.approx((47.818, 100), abs=0.01)  # five of five units
    low, high = intervals(errors + WRONG, 25.0, (1,), units(np.arange(20) // 4), 500, 0)[1]
    assert (low, high) == pytest.approx((0, 52.182), abs=0.01)


def test_independent_queries_get_the_exact_interval():
    errors = np.where(np.arange(80) < 60, RIGHT, WRONG)[:, None]
    expected = binomtest(60, 80).proportion_ci(0.95)
    found = intervals(errors, 25.0, (1,), alone(80), 500, 0)[1]
    assert found == pytest.approx((100 * expected.low, 100 * expected.high))
    assert intervals(errors, 25.0, (1,), alone(80), 0, 0) == {}


@pytest.mark.parametrize("size", [1, 5])
def test_intervals_cover_a_known_share_in_95_percent(size):
    random, covered, widths = np.random.default_rng(2), 0, []
    groups = alone(150) if size == 1 else units(np.arange(300) // size)
    for trial in range(300):
        # All photos of a unit are right or wrong together.
        right = np.repeat(random.random(groups.count) < 0.6, size)
        low, high = intervals(np.where(right, RIGHT, WRONG)[:, None], 25.0, (1,), groups, 300, trial)[1]
        covered += low <= 60 <= high
        widths.append(high - low)
    assert 0.91 <= covered / 300 <= 0.99
    if size == 5:
        naive = binomtest(180, 300).proportion_ci(0.95)
        assert np.mean(widths) > 1.8 * 100 * (naive.high - naive.low)


def test_intervals_match_explicit_resampling_of_units():
    random = np.random.default_rng(3)
    number = np.repeat(np.arange(40), random.integers(1, 9, 40))
    right = (random.random(40) < 0.6)[number] ^ (random.random(len(number)) < 0.1)
    parts = [right[number == unit] for unit in range(40)]
    redrawn = [
        100 * np.concatenate([parts[unit] for unit in random.integers(0, 40, 40)]).mean() for _ in range(4000)
    ]
    errors = np.where(right, RIGHT, WRONG)[:, None]
    found = intervals(errors, 25.0, (1,), units(number), 4000, 0)[1]
    np.testing.assert_allclose(found, np.quantile(redrawn, [0.025, 0.975]), atol=1.5)
