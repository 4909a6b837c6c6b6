"""SF-XL file names -> positions, a million at a time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from stages.index.batch import EntryBatch, SkipReason
from stages.index.sources.sfxl_columns import Bytes, Layout, Rows, Stamps
from stages.index.sources.sfxl_name import parse_name

LONGEST = 1 << 16  # bytes of a path
LAYOUTS = 48  # beyond so many layouts in one batch the names are read one by one


def parse_names(keys: pa.StringArray) -> EntryBatch:
    """Return the positions, zones, headings and timestamps that the names state.

    Parameters
    ----------
    keys
        Paths that end in SF-XL names. One that does not gets a fault.
    """
    found = EntryBatch.blank(keys)
    text, starts, lengths = _bytes_of(keys)
    stamps = Stamps(len(keys))
    rest: Rows = np.arange(len(keys))
    slow: list[int] = []
    for _ in range(LAYOUTS):
        if not len(rest):
            break
        first = int(rest[0])
        layout = Layout.of(text[starts[first] : starts[first] + lengths[first]].tobytes())
        matched = (
            layout.read(text, starts, lengths, rest, found, stamps)
            if layout
            else np.zeros(len(rest), np.bool_)
        )
        if not matched[0]:
            slow.append(first)
            matched[0] = True
        rest = rest[~matched]
    for row in [*slow, *rest.tolist()]:
        _read_slowly(keys[row].as_py(), row, found, stamps)
    found.timestamp = stamps.array()
    return found


def read_alike(text: Bytes) -> EntryBatch | None:
    """Return what lines of one layout say, as SF-XL's are, or None if they are of several.

    Parameters
    ----------
    text
        The lines, a line feed after each.
    """
    length = text[:LONGEST].tobytes().find(b"\n")
    if length < 1:
        return None
    rows, remainder = divmod(len(text), length + 1)
    first = text[:length].tobytes()
    layout = Layout.of(first, b"\n") if not remainder and first.isascii() else None
    if layout is None:
        return None
    lines = text.reshape(rows, length + 1)
    body = np.empty((rows, length), np.uint8)
    found = EntryBatch.blank(_strings(body))
    for start in range(0, rows, layout.block_rows):
        place = slice(start, min(start + layout.block_rows, rows))
        above, departs = layout.check(lines[place])
        if departs is not None or _count_odd(lines[place]) != (layout.slashes + 1) * len(above):
            return None
        layout.put(above, place, found)
        body[place] = lines[place, :length]
    found.timestamp = _strings(np.ascontiguousarray(layout.stamp(body)))
    return found


def _strings(text: Bytes) -> pa.StringArray:
    """Return the rows of (n, bytes) text as strings."""
    offsets = np.arange(len(text) + 1, dtype=np.int32) * np.int32(text.shape[1])
    return pa.StringArray.from_buffers(len(text), pa.py_buffer(offsets), pa.py_buffer(text))


def _count_odd(text: Bytes) -> int:
    """Return how many bytes are "/", control characters or not ASCII.

    With the lowest four bits turned over, "/" is next to the control characters, and bytes that are
    not ASCII are negative.
    """
    return int(np.count_nonzero((text ^ np.uint8(0x0F)).view(np.int8) <= ord("/") ^ 0x0F))


def _read_slowly(name: str, row: int, found: EntryBatch, stamps: Stamps) -> None:
    fields = parse_name(name)
    if isinstance(fields, SkipReason):
        found.faults[row] = fields
        return
    found.positions[row] = fields.east, fields.north
    found.zone_numbers[row] = fields.zone_number
    found.bands[row] = ord(fields.band) if fields.band else 0
    found.heading[row] = fields.heading
    stamp = np.frombuffer(fields.timestamp.encode(), np.uint8)
    stamps.add(np.array([row]), stamp[None, :])


def _bytes_of(keys: pa.StringArray) -> tuple[Bytes, Rows, Rows]:
    """Return the text of all keys, and where each begins and how long it is."""
    _, offset_buffer, text_buffer = keys.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32)[keys.offset : keys.offset + len(keys) + 1].astype(
        np.int64
    )
    text = np.frombuffer(text_buffer, np.uint8) if text_buffer is not None else np.zeros(0, np.uint8)
    return text, offsets[:-1], np.diff(offsets)
