"""A CSV of paths and positions -> batches; the source's further columns come along as strings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from stages.errors import InputError
from stages.index.batch import EntryBatch, SkipReason
from stages.index.manifest import REQUIRED
from stages.index.utm_zone import Zone

BLOCK_BYTES = 1 << 25
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_METRES, _DEGREES = ("utm_east", "utm_north"), ("lat", "lon")


def found_in_table(path: Path) -> Iterator[tuple[EntryBatch, int]]:
    """Yield the rows of a CSV in the file's order, and how many bytes have been read.

    Raises
    ------
    InputError
        If a column is missing or named twice, or the file is no CSV.
    """
    names = _header(path)
    position = _position_columns(path, names)
    ragged: list[str] = []

    def note(row: csv.InvalidRow) -> str:
        ragged.append(row.text or f"line with {row.actual_columns} fields")
        return "skip"

    done = 0
    try:
        reader = csv.open_csv(
            path,
            read_options=csv.ReadOptions(block_size=BLOCK_BYTES),
            parse_options=csv.ParseOptions(invalid_row_handler=note),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
        for batch in reader:
            done += batch.nbytes
            yield _find(batch, position), done
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is no readable CSV: {error}") from error
    if ragged:
        found = EntryBatch.blank(pa.array(ragged, pa.string()))
        found.faults[:] = SkipReason.RAGGED
        found.further = {name: pa.repeat("", len(ragged)) for name in _further(names, position)}
        yield found, done


def _header(path: Path) -> list[str]:
    try:
        options = csv.ReadOptions(block_size=1 << 16)
        names: list[str] = csv.open_csv(
            path, read_options=options, parse_options=csv.ParseOptions(invalid_row_handler=lambda _: "skip")
        ).schema.names
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is no readable CSV: {error}") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path} has two columns named {twice[0]}: expected different names")
    return names


def _position_columns(path: Path, names: list[str]) -> tuple[str, str]:
    """Return the two columns that state the position, metres before degrees."""
    for position in (_METRES, _DEGREES):
        if {"path", *position} <= set(names):
            break
    else:
        raise InputError(
            f"{path} has the columns {', '.join(names)}: "
            "expected path and either lat, lon or utm_east, utm_north"
        )
    clash = [name for name in _further(names, position) if name in REQUIRED.names]
    if clash:
        raise InputError(f"{path} has a column named {clash[0]}, a name the manifest needs itself: rename it")
    return position


def _further(names: list[str], position: tuple[str, str]) -> list[str]:
    used = {"path", "heading", "timestamp", *position} | ({"zone"} if position == _METRES else set())
    return [name for name in names if name not in used]


def _find(batch: pa.RecordBatch, position: tuple[str, str]) -> EntryBatch:
    found = EntryBatch.blank(batch["path"])
    found.faults[pc.equal(pc.binary_length(batch["path"]), 0).to_numpy(zero_copy_only=False)] = (
        SkipReason.NO_KEY
    )
    for axis, name in enumerate(position):
        found.positions[:, axis], empty = _numbers(batch[name])
        found.faults[empty & (found.faults == SkipReason.NONE)] = SkipReason.NO_POSITION
    found.latlon[:] = position == _DEGREES
    names = batch.schema.names
    if position == _METRES and "zone" in names:
        _read_zones(batch["zone"], found)
    if "heading" in names:
        found.heading[:] = _numbers(batch["heading"])[0]
    if "timestamp" in names:
        found.timestamp = batch["timestamp"]
    found.further = {name: batch[name] for name in _further(names, position)}
    return found


def _numbers(column: pa.StringArray) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return a text column as numbers, NaN where it is none, and where it is empty."""
    text = pc.utf8_trim_whitespace(column)
    empty = pc.equal(text, "").to_numpy(zero_copy_only=False)
    try:
        numbers = pc.cast(text, pa.float64())
    except pa.ArrowInvalid:
        usable = pc.match_substring_regex(text, _NUMBER)
        numbers = pc.cast(pc.if_else(usable, text, None), pa.float64())
    return np.asarray(pc.fill_null(numbers, np.nan).to_numpy(zero_copy_only=False), np.float64), empty


def _read_zones(column: pa.StringArray, found: EntryBatch) -> None:
    """Read zones such as 10S; an empty one says nothing."""
    encoded = pc.dictionary_encode(pc.utf8_trim_whitespace(column))
    codes = encoded.indices.to_numpy()
    for code, text in enumerate(encoded.dictionary.to_pylist()):
        if not text:
            continue
        rows = np.flatnonzero(codes == code)
        try:
            zone = Zone.of(text)
        except InputError:
            found.faults[rows[found.faults[rows] == SkipReason.NONE]] = SkipReason.BAD_ZONE
            continue
        found.zone_numbers[rows] = zone.number
        found.bands[rows] = ord(zone.band)
