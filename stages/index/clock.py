"""Timestamps as programs and spreadsheets write them, and the day that one states."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

DAY_LENGTH = len("2025-12-31")
_CLOCK_LENGTH = len("2025-12-31T23:59:59")
_ISO = r"^(\d{4}-\d{2}-\d{2}|\d{4}|\d{6}|\d{4}-\d{2}|)($|[T ])"
_TIME_FIRST = (
    r"^(\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[AaPp][Mm])?)[ ,]+(\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4})$"
)
_COMPACT = r"^(\d{4})(\d{2})(\d{2})[T ]?([0-2]\d)(\d{2})(\d{2})?$"
_NUMBER = r"^\d+(\.\d*)?$"
_DAY = re.compile(
    r"(\d{4}[-/:.]\d{1,2}[-/:.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}|(?:19|20)\d{6})(?!\d)"
    r"|((?:19|20)\d{2}|(?:19|20)\d{2}-?(?:0[1-9]|1[0-2]))$"
)
# Seconds from 1990 to 2033, which no date that is written as one number reaches; then milliseconds and so on.
_FIRST_S, _LAST_S = 631_152_000.0, 1_990_000_000.0
_UNITS_PER_S = (1.0, 1e3, 1e6, 1e9)
_SPREADSHEET_EPOCH_S = -2_209_161_600.0  # 1899-12-30, the day 0 of spreadsheets
_DAY_S = 86_400.0


def iso_timestamps(texts: pa.StringArray) -> pa.StringArray:
    """Return timestamps as ISO 8601 where their meaning is clear; all others stay as they are.

    Seconds, milliseconds, micro- and nanoseconds since 1970 and the day numbers of spreadsheets, all in
    UTC, count as clear between 1990 and 2033. A time before its date is moved behind it.
    """
    trimmed = pc.utf8_trim_whitespace(texts)
    is_iso = np.asarray(pc.match_substring_regex(trimmed, _ISO), np.bool_)
    if is_iso.all():
        return texts
    text = pc.replace_substring_regex(trimmed, _TIME_FIRST, r"\2 \1")
    is_number = pc.match_substring_regex(text, _NUMBER)
    numbers = np.array(pc.fill_null(pc.cast(pc.if_else(is_number, text, None), pa.float64()), np.nan))
    seconds = _seconds(numbers)
    known = ~np.isnan(seconds)
    moments = np.full(len(seconds), "NaT", "datetime64[s]")
    moments[known] = np.floor(seconds[known]).astype(np.int64).astype("datetime64[s]")
    spelled = pa.array(np.datetime_as_string(moments), pa.string())
    text = pc.replace_substring_regex(text, _COMPACT, r"\1-\2-\3T\4:\5:\6")
    text = pc.replace_substring_regex(text, r":$", "")
    return pc.if_else(pa.array(known), spelled, pc.if_else(pa.array(is_iso), texts, text))


def clock_seconds(texts: pa.StringArray) -> npt.NDArray[np.float64]:
    """Return ISO 8601 timestamps as seconds since 1970 on their own clock, NaN without a time of day."""
    clock = pc.replace_substring(pc.utf8_slice_codeunits(texts, 0, _CLOCK_LENGTH), " ", "T")
    moments = pc.strptime(clock, "%Y-%m-%dT%H:%M:%S", "s", error_is_null=True).cast(pa.int64())
    return np.asarray(moments.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False))


def day_of(text: str) -> str:
    """Return the part of a timestamp, or of its first 10 letters, that states the day; "" if none does.

    A month or a year alone, as SF-XL states, counts as a day. Numbers of seconds state none.
    """
    match = _DAY.match(text)
    return match[0] if match else ""


def _seconds(numbers: np.ndarray) -> np.ndarray:
    """Return numbers as seconds since 1970, NaN where they are no plausible time."""
    seconds = np.full(len(numbers), np.nan)
    for unit in _UNITS_PER_S:
        scaled = numbers / unit
        seconds = np.where((scaled >= _FIRST_S) & (scaled <= _LAST_S), scaled, seconds)
    days = numbers * _DAY_S + _SPREADSHEET_EPOCH_S
    return np.where((days >= _FIRST_S) & (days <= _LAST_S), days, seconds)
