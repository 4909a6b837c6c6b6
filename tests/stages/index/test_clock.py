"""Timestamps of many programs, and the day that one states."""

import pyarrow as pa
import pytest

from stages.index.clock import DAY_LENGTH, day_of, iso_timestamps


def iso(*texts):
    return iso_timestamps(pa.array(texts, pa.string())).to_pylist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1419984000", "2014-12-31T00:00:00"),
        ("1419984000.75", "2014-12-31T00:00:00"),
        ("1419984000123", "2014-12-31T00:00:00"),
        ("1419984000123456", "2014-12-31T00:00:00"),
        ("42004", "2014-12-31T00:00:00"),
        ("42004.5", "2014-12-31T12:00:00"),
        ("20141231094711", "2014-12-31T09:47:11"),
        ("20141231T0947", "2014-12-31T09:47"),
        ("09:47:11 2014-12-31", "2014-12-31 09:47:11"),
        ("9:47 AM, 31.12.2014", "31.12.2014 9:47 AM"),
    ],
)
def test_clear_times_become_days(text, expected):
    assert iso(text, "2014-12-31") == [expected, "2014-12-31"]
    assert day_of(expected[:DAY_LENGTH])


@pytest.mark.parametrize(
    "text",
    ["", "201408", "2014", "2014-08", "20140831", "2014:12:31 09:47:11", "12", "9:47", "4e9"],
)
def test_other_times_stay_as_they_are(text):
    assert iso(text, "2014-12-31 ", "1419984000") == [text, "2014-12-31 ", "2014-12-31T00:00:00"]


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2014-12-31T09:47:11", "2014-12-31"),
        ("2014/12/31 09:47", "2014/12/31"),
        ("2014:12:31 09:47:11", "2014:12:31"),
        ("31.12.2014 09:47", "31.12.2014"),
        ("1/2/2014 9:47", "1/2/2014"),
        ("20140831", "20140831"),
        ("20140831T094711", "20140831"),
        ("201408", "201408"),
        ("2014-08", "2014-08"),
        ("2014", "2014"),
        ("1419984000", ""),
        ("1419984000123", ""),
        ("09:47:11 2014-12-31", ""),
        ("42004.51234", ""),
        ("201499", ""),
        ("noon", ""),
        ("", ""),
    ],
)
def test_the_day_of_a_timestamp(text, day):
    assert day_of(text[:DAY_LENGTH]) == day
