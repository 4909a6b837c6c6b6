"""Batches of SF-XL file names to positions, one layout after the other."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from stages.index.batch import EntryBatch
from stages.index.skipped import SkipReason
from stages.index.sources.sfxl_name_layouts import Bytes, Layout, Rows, TimestampColumn
from stages.index.sources.sfxl_name_reference import can_be_utm, parse_name

MAX_PATH_BYTES = 1 << 16
MAX_LAYOUTS = 48  # names of further layouts in a batch are parsed one by one


def parse_names(keys: pa.StringArray) -> EntryBatch:
    """Return what the names state; an entry whose name states no usable position has a skip reason.

    Parameters
    ----------
    keys
        n paths that end in SF-XL names.
    """
    batch = EntryBatch.blank(keys)
    text, starts, lengths = _bytes_of(keys)
    timestamps = TimestampColumn(len(keys))
    rest: Rows = np.arange(len(keys))
    single: list[int] = []
    for _ in range(MAX_LAYOUTS):
        if not len(rest):
            break
        first = int(rest[0])
        layout = Layout.of(text[starts[first] : starts[first] + lengths[first]].tobytes())
        matched = (
            layout.read(text, starts, lengths, rest, batch, timestamps)
            if layout
            else np.zeros(len(rest), np.bool_)
        )
        if not matched[0]:
            single.append(first)
            matched[0] = True
        rest = rest[~matched]
    batch.skip(~can_be_utm(batch.positions), SkipReason.OUT_OF_RANGE)
    for row in [*single, *rest.tolist()]:
        _parse_one(keys[row].as_py(), row, batch, timestamps)
    batch.timestamp = timestamps.array()
    return batch


def parse_uniform_lines(text: Bytes) -> EntryBatch | None:
    """Return what lines of one layout state, such as SF-XL's own list; None if there are several layouts.

    Parameters
    ----------
    text
        The lines, each with a line feed.
    """
    length = text[:MAX_PATH_BYTES].tobytes().find(b"\n")
    if length < 1:
        return None
    rows, remainder = divmod(len(text), length + 1)
    first = text[:length].tobytes()
    layout = Layout.of(first, b"\n") if not remainder and first.isascii() else None
    if layout is None:
        return None
    lines = text.reshape(rows, length + 1)
    body = np.empty((rows, length), np.uint8)
    batch = EntryBatch.blank(_strings(body))
    for start in range(0, rows, layout.block_rows):
        block = slice(start, min(start + layout.block_rows, rows))
        above, fits = layout.check(lines[block])
        if fits is not None or _count_special(lines[block]) != (layout.slashes + 1) * len(above):
            return None
        layout.store(above, block, batch)
        body[block] = lines[block, :length]
    batch.skip(~can_be_utm(batch.positions), SkipReason.OUT_OF_RANGE)
    batch.timestamp = _strings(np.ascontiguousarray(layout.timestamps(body)))
    return batch


def _strings(text: Bytes) -> pa.StringArray:
    """Return the rows of (n, bytes) text as strings."""
    offsets = np.arange(len(text) + 1, dtype=np.int32) * np.int32(text.shape[1])
    return pa.StringArray.from_buffers(len(text), pa.py_buffer(offsets), pa.py_buffer(text))


def _count_special(text: Bytes) -> int:
    """Return how many bytes are "/", control characters or not ASCII.

    One comparison finds all three: with its lowest four bits inverted "/" sorts next to the control
    characters, and as signed numbers bytes that are not ASCII are negative.
    """
    return int(np.count_nonzero((text ^ np.uint8(0x0F)).view(np.int8) <= ord("/") ^ 0x0F))


def _parse_one(name: str, row: int, batch: EntryBatch, timestamps: TimestampColumn) -> None:
    fields = parse_name(name)
    batch.skip_reasons[row] = SkipReason.NONE
    if isinstance(fields, SkipReason):
        batch.skip_reasons[row] = fields
        return
    batch.positions[row] = fields.east, fields.north
    batch.zone_numbers[row] = fields.zone_number
    batch.bands[row] = ord(fields.band) if fields.band else 0
    batch.heading[row] = fields.heading
    timestamp = np.frombuffer(fields.timestamp.encode(), np.uint8)
    timestamps.add(np.array([row]), timestamp[None, :])


def _bytes_of(keys: pa.StringArray) -> tuple[Bytes, Rows, Rows]:
    """Return the text of all keys, and the start and length of each."""
    _, offset_buffer, text_buffer = keys.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32)[keys.offset : keys.offset + len(keys) + 1].astype(
        np.int64
    )
    text = np.frombuffer(text_buffer, np.uint8) if text_buffer is not None else np.zeros(0, np.uint8)
    return text, offsets[:-1], np.diff(offsets)
