"""A CSV file of paths and positions; its other columns are kept as strings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from stages.errors import InputError
from stages.index.batch import EntryBatch
from stages.index.manifest import REQUIRED
from stages.index.skipped import SkipReason
from stages.index.utm_zone import Zone

BLOCK_BYTES = 1 << 25
HEADER_BYTES = 1 << 16
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_METRES, _DEGREES = ("utm_east", "utm_north"), ("lat", "lon")


def read_csv(path: Path) -> Iterator[tuple[EntryBatch, int]]:
    """Yield the rows of a CSV in the file's order, and the number of bytes read so far.

    Rows with too many or too few fields come last, as skipped entries.

    Raises
    ------
    InputError
        If a column is missing or named twice, or the file is not a CSV.
    """
    names = _header(path)
    position = _position_columns(path, names)
    ragged: list[str] = []

    def keep_ragged(row: csv.InvalidRow) -> str:
        ragged.append(row.text or f"line with {row.actual_columns} fields")
        return "skip"

    done = 0
    try:
        reader = csv.open_csv(
            path,
            read_options=csv.ReadOptions(block_size=BLOCK_BYTES),
            parse_options=csv.ParseOptions(invalid_row_handler=keep_ragged),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
        for rows in reader:
            done += rows.nbytes
            yield _read_rows(rows, position), done
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is not a readable CSV: {error}") from error
    if ragged:
        batch = EntryBatch.blank(pa.array(ragged, pa.string()))
        batch.skip_reasons[:] = SkipReason.RAGGED
        batch.extra_columns = {name: pa.repeat("", len(ragged)) for name in _extra_names(names, position)}
        yield batch, done


def _header(path: Path) -> list[str]:
    try:
        names: list[str] = csv.open_csv(
            path,
            read_options=csv.ReadOptions(block_size=HEADER_BYTES),
            parse_options=csv.ParseOptions(invalid_row_handler=lambda _: "skip"),
        ).schema.names
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is not a readable CSV: {error}") from error
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"{path} has two columns named {repeated[0]}: expected different names")
    return names


def _position_columns(path: Path, names: list[str]) -> tuple[str, str]:
    """Return the two columns that state the position: metres if there are both kinds."""
    for position in (_METRES, _DEGREES):
        if {"path", *position} <= set(names):
            break
    else:
        raise InputError(
            f"{path} has the columns {', '.join(names)}: "
            "expected path and either lat, lon or utm_east, utm_north"
        )
    reserved = [name for name in _extra_names(names, position) if name in REQUIRED.names]
    if reserved:
        raise InputError(
            f"{path} has a column named {reserved[0]}, which the manifest uses itself: rename the column"
        )
    return position


def _extra_names(names: list[str], position: tuple[str, str]) -> list[str]:
    """Return the columns that are copied to the manifest unread."""
    used = {"path", "heading", "timestamp", *position} | ({"zone"} if position == _METRES else set())
    return [name for name in names if name not in used]


def _read_rows(rows: pa.RecordBatch, position: tuple[str, str]) -> EntryBatch:
    batch = EntryBatch.blank(rows["path"])
    batch.skip(_is_empty(rows["path"]), SkipReason.NO_KEY)
    for axis, name in enumerate(position):
        text = pc.utf8_trim_whitespace(rows[name])
        batch.positions[:, axis] = _numbers(text)
        batch.skip(_is_empty(text), SkipReason.NO_POSITION)
    batch.latlon[:] = position == _DEGREES
    names = rows.schema.names
    if position == _METRES and "zone" in names:
        _read_zones(rows["zone"], batch)
    if "heading" in names:
        batch.heading[:] = _numbers(pc.utf8_trim_whitespace(rows["heading"]))
    if "timestamp" in names:
        batch.timestamp = rows["timestamp"]
    batch.extra_columns = {name: rows[name] for name in _extra_names(names, position)}
    return batch


def _is_empty(text: pa.StringArray) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.equal(text, ""), np.bool_)


def _numbers(text: pa.StringArray) -> npt.NDArray[np.float64]:
    """Return texts as numbers, NaN where one is not a number."""
    try:
        numbers = pc.cast(text, pa.float64())
    except pa.ArrowInvalid:
        usable = pc.match_substring_regex(text, _NUMBER)
        numbers = pc.cast(pc.if_else(usable, text, None), pa.float64())
    return np.asarray(pc.fill_null(numbers, np.nan), np.float64)


def _read_zones(column: pa.StringArray, batch: EntryBatch) -> None:
    """Set the zones that texts such as 10S name; an empty text leaves the zone unknown."""
    zones = pc.dictionary_encode(pc.utf8_trim_whitespace(column))
    codes = zones.indices.to_numpy()
    for code, text in enumerate(zones.dictionary.to_pylist()):
        if not text:
            continue
        try:
            zone = Zone.of(text)
        except InputError:
            batch.skip(codes == code, SkipReason.BAD_ZONE)
            continue
        batch.zone_numbers[codes == code] = zone.number
        batch.bands[codes == code] = ord(zone.band)
