"""A CSV file of paths and positions; its other columns are kept as strings."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from stages.errors import InputError
from stages.index.batch import EntryBatch
from stages.index.clock import iso_timestamps
from stages.index.degrees import LATITUDE, LONGITUDE
from stages.index.skipped import SkipReason
from stages.index.sources.csv_form import DEGREES, METRES, CsvForm, form_of
from stages.index.sources.encoding import fix, whole_lines
from stages.index.sources.numbers import heading_degrees, position_degrees, position_metres
from stages.index.utm_zone import Zone

BLOCK_BYTES = 1 << 24
Columns = list[pa.StringArray]


def read_csv(path: Path) -> Iterator[tuple[EntryBatch, int]]:
    """Yield the rows of a CSV in the file's order, and the number of bytes read so far.

    Raises
    ------
    InputError
        If its columns are not those that are needed or it is not a CSV in UTF-8 or UTF-16.
    """
    form = form_of(path)
    skip_lines = form.skip_lines
    # Each block is parsed on its own: pyarrow's streaming reader has a thread that outlives an error.
    for block, done in whole_lines(path, form.encoding, BLOCK_BYTES):
        line_end = b"\n" if b"\n" in block else b"\r"
        while skip_lines and block:
            block = block.partition(line_end)[2]
            skip_lines -= 1
        if not block.strip():
            continue
        columns, is_ragged = _columns(block, path, form)
        yield _batch(columns, is_ragged, form), done


def _columns(block: bytes, path: Path, form: CsvForm) -> tuple[Columns, npt.NDArray[np.bool_]]:
    """Return the columns of whole lines, and which rows have more or fewer fields than the header."""
    ragged = False

    def note_ragged(_: object) -> str:
        nonlocal ragged
        ragged = True
        return "skip"

    names = [str(number) for number in range(len(form.names))]
    try:
        table = pyarrow.csv.read_csv(
            pa.py_buffer(block),
            read_options=pyarrow.csv.ReadOptions(column_names=names),
            parse_options=pyarrow.csv.ParseOptions(delimiter=form.delimiter, invalid_row_handler=note_ragged),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
        if ragged:
            return _ragged_columns(block.decode(), form)
    except UnicodeDecodeError:
        raise _not_utf8(path, block) from None
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise _not_utf8(path, block) from None
        raise InputError(f"{path} is not a readable CSV: {error}") from error
    columns = [pa.chunked_array(column).combine_chunks() for column in table.columns]
    return columns, np.zeros(table.num_rows, np.bool_)


def _not_utf8(path: Path, block: bytes) -> InputError:
    """Return the error that shows the first line that is not UTF-8."""
    try:
        block.decode()
    except UnicodeDecodeError as error:
        start = max(block.rfind(b"\n", 0, error.start), block.rfind(b"\r", 0, error.start)) + 1
        line = block[start : start + 80].splitlines()[0].decode("utf-8", "backslashreplace")
        return InputError(f"{path} is not a readable CSV: not UTF-8 in the line '{line}': {fix(path)}")
    return InputError(f"{path} is not a readable CSV: not UTF-8: {fix(path)}")


def _ragged_columns(block: str, form: CsvForm) -> tuple[Columns, npt.NDArray[np.bool_]]:
    """Return the columns of lines that differ in length; fields without a name may be absent or empty."""
    width = len(form.names)
    needed = max(number for number, name in enumerate(form.names) if name) + 1
    rows, is_ragged = [], []
    for row in csv.reader(block.splitlines(), delimiter=form.delimiter):
        if not row:
            continue
        fits = len(row) >= needed and not any(field.strip() for field in row[width:])
        is_ragged.append(not fits)
        padded = [*row[:width], *[""] * (width - len(row))] if fits else [""] * width
        if not fits:
            padded[form.names.index("path")] = form.delimiter.join(row)
        rows.append(padded)
    return [pa.array(column, pa.string()) for column in zip(*rows, strict=True)], np.array(is_ragged)


def _batch(columns: Columns, is_ragged: npt.NDArray[np.bool_], form: CsvForm) -> EntryBatch:
    by_name = dict(zip(form.names, columns, strict=True))
    keys = by_name["path"]
    batch = EntryBatch.blank(keys)
    batch.skip(is_ragged, SkipReason.RAGGED)
    batch.skip(_is_empty(pc.utf8_trim_whitespace(keys)), SkipReason.NO_KEY)
    _read_positions([by_name[name] for name in form.position], form.position == DEGREES, batch)
    if form.position == METRES and "zone" in by_name:
        _read_zones(by_name["zone"], batch)
    if "heading" in by_name:
        batch.heading[:] = heading_degrees(pc.utf8_trim_whitespace(by_name["heading"]))
    if "timestamp" in by_name:
        batch.timestamp = iso_timestamps(by_name["timestamp"])
    batch.extra_columns = {name: by_name[name] for name in form.extra_names}
    return batch


def _read_positions(columns: Columns, latlon: bool, batch: EntryBatch) -> None:
    batch.latlon[:] = latlon
    for axis, (column, letters) in enumerate(zip(columns, (LATITUDE, LONGITUDE), strict=True)):
        text = pc.utf8_trim_whitespace(column)
        batch.skip(_is_empty(text), SkipReason.NO_POSITION)
        if latlon:
            batch.positions[:, axis] = position_degrees(text, letters)
        else:
            batch.positions[:, axis], is_ambiguous = position_metres(text)
            batch.skip(is_ambiguous, SkipReason.COMMA)


def _is_empty(text: pa.StringArray) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.equal(text, ""), np.bool_)


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
