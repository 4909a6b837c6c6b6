"""Degrees of latitude and longitude as people and cameras write them: text and EXIF values."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

LATITUDE, LONGITUDE = "NS", "EW"
"""The letters of an axis: positive, then negative."""

_WORDS = {"N": "NORTH", "S": "SOUTH", "E": "EAST", "W": "WEST"}
_NUMBER = re.compile(r"\d+(?:[.,]\d*)?|[.,]\d+")
# What may stand between the numbers: units of degrees, minutes and seconds in any spelling, and space.
_UNITS = re.compile(r"(?:deg(?:rees?)?|min(?:utes?)?|sec(?:onds?)?|[\s:;d°º˚'′’\"″”])+", re.IGNORECASE)

_ROUNDING = 1e-4  # rationals of whole numbers may be off by this much
_ANGLE = re.compile(
    r"(?P<before>[A-Za-z]*) ?(?:\+|(?P<minus>[-\u2212]))? ?(?P<numbers>[\d., ]+?) ?(?P<after>[A-Za-z]*)"
)


def hemisphere(reference: Any, letters: str) -> int:
    """Return 1 or -1 for a letter or word such as "N", "s" or "West", 0 if it names neither.

    Parameters
    ----------
    reference : str, bytes or sequence of int
        What a GPSLatitudeRef or GPSLongitudeRef holds; some programs write it as bytes.
    letters : str
        `LATITUDE` or `LONGITUDE`.
    """
    word = _text_of(reference).upper()
    for letter, sign in zip(letters, (1, -1), strict=True):
        if word in (letter, _WORDS[letter]):
            return sign
    return 0


def parse_degrees(text: str, letters: str) -> tuple[float, int] | None:
    """Return the number of degrees that a text states and its hemisphere, None if it states none.

    "-37.77", "37,77", "37.77° N", "S 33 51 36.5" and "33° 51' 36.5 S" are read.

    Returns
    -------
    tuple of float and int
        Degrees, negative only where the text has a minus, and the sign of the letter, 0 without one.
    """
    match = _ANGLE.fullmatch(_UNITS.sub(" ", text).strip())
    if match is None or (match["before"] and match["after"]):
        return None
    letter, parts = match["before"] or match["after"], match["numbers"].split()
    sign = hemisphere(letter, letters)
    if (letter and not sign) or len(parts) > 3 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    degrees = sexagesimal([float(part.replace(",", ".")) for part in parts])
    return None if degrees is None else (-degrees if match["minus"] else degrees, sign)


def exif_degrees(value: Any, letters: str) -> tuple[float, int] | None:
    """Return the number of degrees of a GPSLatitude or GPSLongitude value, None if it cannot be read.

    Degrees, minutes and seconds are the standard; degrees and decimal minutes, decimal degrees alone and
    text are read as well. The hemisphere is 0 unless a text names it.
    """
    if isinstance(value, str | bytes):
        return parse_degrees(_text_of(value), letters)
    parts = value if isinstance(value, Sequence) else (value,)
    if not 1 <= len(parts) <= 3:
        return None
    numbers = [number(part) for part in parts]
    negative = any(math.copysign(1, part) < 0 and part for part in numbers)
    degrees = sexagesimal([abs(part) for part in numbers])
    return None if degrees is None else (-degrees if negative else degrees, 0)


def sexagesimal(parts: Sequence[float]) -> float | None:
    """Return degrees of one to three numbers: degrees, minutes, seconds; None if they make no angle.

    A number behind a decimal one must add nothing: where minutes are decimal, seconds are 0 or unknown (NaN).
    """
    total, is_decimal = 0.0, False
    for place, part in enumerate(parts):
        if not math.isfinite(part):
            return total if is_decimal else None
        if place and (part >= 60.0 + 1e-9 or (part and is_decimal)):
            return None
        is_decimal = is_decimal or abs(part - round(part)) > _ROUNDING
        total += part / 60.0**place
    return total


def number(value: Any) -> float:
    """Return a rational or other number as a float, NaN if it is absent or divides by zero."""
    try:
        return float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return math.nan


def _text_of(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        codes = [code for code in value if isinstance(code, int) and 0 < code < 256]
        value = bytes(codes) if len(codes) else b""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return str("" if value is None else value).strip("\0 \t\r\n")
