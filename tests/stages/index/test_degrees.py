"""Degrees as people and cameras write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL.TiffImagePlugin import IFDRational

from stages.index.degrees import LATITUDE, LONGITUDE, exif_degrees, hemisphere, parse_degrees


@pytest.mark.parametrize("reference", ["S", "s", "South", "SOUTH", b"S", b"S\0", (83,), (83, 0), " S\0"])
def test_south_in_every_spelling(reference):
    assert hemisphere(reference, LATITUDE) == -1


@pytest.mark.parametrize("reference", [None, "", "\0", "X", "E", "Sunday", b"", (), 83, "NS"])
def test_no_hemisphere_of_latitude(reference):
    assert hemisphere(reference, LATITUDE) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-37.775", (-37.775, 0)),
        ("+37.775", (37.775, 0)),
        ("\u221237.775", (-37.775, 0)),
        ("37,775", (37.775, 0)),
        ("37.775\u00b0", (37.775, 0)),
        ("37.775\u00b0 N", (37.775, 1)),
        ("37.775S", (37.775, -1)),
        ("south 37.775", (37.775, -1)),
        ("S-37.775", (-37.775, -1)),
        ("37\u00b0 46\u2032 30\u2033 N", (37.775, 1)),
        ("37 46.5", (37.775, 0)),
        ("37:46:30", (37.775, 0)),
        ("37 deg 46' 30\" S", (37.775, -1)),
    ],
)
def test_degrees_in_text(text, expected):
    degrees, sign = parse_degrees(text, LATITUDE)
    assert (degrees, sign) == (pytest.approx(expected[0]), expected[1])


@pytest.mark.parametrize(
    "text",
    ["", "north", "N", "37.775 E", "N 37 S", "1 2 3 4", "37 61", "3.7.7", "1e3", "nan", "--3", "37 -46"],
)
def test_no_degrees_in_text(text):
    assert parse_degrees(text, LATITUDE) is None


def rationals(*parts):
    return tuple(IFDRational(*part) if isinstance(part, tuple) else IFDRational(part, 1) for part in parts)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (rationals(37, 46, 30), 37.775),
        (rationals(37, (465, 10)), 37.775),
        (rationals((37775, 1000)), 37.775),
        (rationals(37, (465, 10), (0, 0)), 37.775),
        (rationals((37775, 1000), (0, 0), (0, 0)), 37.775),
        (IFDRational(37775, 1000), 37.775),
        (37.775, 37.775),
        ("37.775", 37.775),
        (b"37.775\0", 37.775),
        (rationals((-37, 1), 46, 30), -37.775),
        (rationals(0, (-465, 10)), -0.775),
    ],
)
def test_exif_values(value, expected):
    degrees, sign = exif_degrees(value, LONGITUDE)
    assert (degrees, sign) == (pytest.approx(expected), 0)


@pytest.mark.parametrize(
    "value",
    [None, (), rationals(1, 2, 3, 4), rationals(37, 46, (0, 0)), rationals((0, 0)), "east", rationals(1, 75)],
)
def test_exif_values_that_are_no_angle(value):
    assert exif_degrees(value, LONGITUDE) is None


@given(st.floats(-180, 180), st.sampled_from(["{:.7f}", "{:+.7f}", "{:.7f}\u00b0", " {:.7f} "]))
def test_written_decimals_are_read_back(value, form):
    degrees, sign = parse_degrees(form.format(value), LONGITUDE)
    assert sign == 0
    assert math.isclose(degrees, value, abs_tol=1e-7)


@given(st.text(max_size=30))
def test_any_text_gives_degrees_or_none(text):
    found = parse_degrees(text, LATITUDE)
    assert found is None or math.isfinite(found[0])


@given(
    st.one_of(
        st.none(), st.binary(max_size=9), st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=3)))
    )
)
def test_any_exif_value_gives_degrees_or_none(value):
    found = exif_degrees(value, LATITUDE)
    assert found is None or math.isfinite(found[0])
