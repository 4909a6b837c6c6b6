"""Columns of text as numbers: metres and degrees as programs and spreadsheets write them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stages.index.degrees import parse_degrees

Numbers = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_DECIMAL_COMMA = r"^[+-]?\d*,\d+$"
_THOUSANDS = r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$"
_ONE_COMMA = r"^[+-]?\d{1,3},\d{3}$"
# A number with a sign, a degree sign and a letter, each optional; all else is left to `parse_degrees`.
_DEGREES = (
    r"^(?P<sign>[+\-\x{2212}]?)\s*(?P<number>\d+(?:[.,]\d*)?|[.,]\d+)\s*[°º˚]?\s*(?P<letter>[A-Za-z]?)$"
)


def position_metres(text: pa.StringArray) -> tuple[Numbers, Mask]:
    """Return texts as metres, NaN where one is not a number; and where a comma has two readings.

    "543256,96", "4,178,906" and "543,256.96" are clear; "543,256" may be half a kilometre or 543 of them.
    """
    numbers = _numbers(text)
    is_ambiguous = np.zeros(len(text), np.bool_)
    rest = np.flatnonzero(np.isnan(numbers))
    if len(rest):
        some = text.take(pa.array(rest))
        one_comma = pc.match_substring_regex(some, _ONE_COMMA)
        is_ambiguous[rest] = np.asarray(one_comma, np.bool_)
        thousands = pc.match_substring_regex(some, _THOUSANDS)
        some = pc.if_else(thousands, pc.replace_substring(some, ",", ""), some)
        decimal = pc.match_substring_regex(some, _DECIMAL_COMMA)
        some = pc.if_else(decimal, pc.replace_substring(some, ",", "."), some)
        numbers[rest] = _numbers(some)
    return numbers, is_ambiguous


def position_degrees(text: pa.StringArray, letters: str) -> Numbers:
    """Return texts as signed degrees, NaN where one states none or its sign contradicts its letter.

    Parameters
    ----------
    text
        n texts such as "-37.77", "37,77", "37.77° N" or "33° 51' S".
    letters
        The letters of the axis, positive and negative: "NS" or "EW".
    """
    numbers = _numbers(text)
    rest = np.flatnonzero(np.isnan(numbers))
    if len(rest):
        some = text.take(pa.array(rest))
        numbers[rest] = _simple_degrees(some, letters)
        for row in rest[np.isnan(numbers[rest])].tolist():
            angle = parse_degrees(text[row].as_py(), letters)
            if angle is not None:
                numbers[row] = _signed(
                    np.array([abs(angle[0])]), np.array([angle[0] < 0]), np.array([angle[1]])
                )[0]
    return numbers


def heading_degrees(text: pa.StringArray) -> Numbers:
    """Return texts as headings: NaN where one is empty, infinite where it is not a number or too large."""
    headings = position_degrees(text, "  ")
    is_empty = np.asarray(pc.equal(text, ""), np.bool_)
    with np.errstate(invalid="ignore"):
        return np.where(is_empty, np.nan, np.where(np.abs(headings) < 1e9, headings, np.inf))


def _simple_degrees(text: pa.StringArray, letters: str) -> Numbers:
    parts = pc.extract_regex(text, _DEGREES)
    sign, number, letter = (pc.struct_field(parts, name) for name in ("sign", "number", "letter"))
    degrees = _numbers(pc.fill_null(pc.replace_substring(number, ",", "."), ""))
    letter = np.asarray(pc.fill_null(pc.utf8_upper(letter), "").to_pylist(), dtype="U1")
    side = np.where(letter == letters[0], 1, np.where(letter == letters[1], -1, 0))
    degrees[(letter != "") & (side == 0)] = np.nan
    is_negative = np.asarray(pc.fill_null(pc.is_in(sign, pa.array(["-", "\u2212"])), False), np.bool_)
    return _signed(degrees, is_negative, side)


def _signed(degrees: Numbers, is_negative: Mask, side: npt.NDArray[np.int64]) -> Numbers:
    """Return degrees with the sign of a minus or of a letter; both together count once."""
    contradicts = is_negative & (side > 0)
    return np.where(contradicts, np.nan, np.where(is_negative | (side < 0), -degrees, degrees))


def _numbers(text: pa.StringArray) -> Numbers:
    """Return texts as numbers, NaN where one is not a number."""
    try:
        numbers = pc.cast(text, pa.float64())
    except pa.ArrowInvalid:
        usable = pc.match_substring_regex(text, _NUMBER)
        numbers = pc.cast(pc.if_else(usable, text, None), pa.float64())
    return np.array(pc.fill_null(numbers, np.nan), np.float64)
