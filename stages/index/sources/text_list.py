"""A list of SF-XL paths, one a line -> batches with positions."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.errors import InputError
from stages.index.batch import EntryBatch, SkipReason
from stages.index.sources.sfxl_columns import Bytes
from stages.index.sources.sfxl_names import parse_names, read_alike

BLOCK_BYTES = 1 << 23  # larger ones make the allocator fetch fresh pages for every block
MOST_WORKERS = 8
NEWLINE = np.uint8(ord("\n"))
_LONGEST = 1 << 16
_MARK = b"\xef\xbb\xbf"


def found_in_list(path: Path) -> Iterator[tuple[EntryBatch, int]]:
    """Yield what the lines of a text file name, in the file's order, and how many bytes have been read.

    Blank lines count for nothing; a line may end in LF or CRLF.
    """
    workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    pending: deque[tuple[Future[EntryBatch], Bytes, int]] = deque()
    spare: list[Bytes] = []
    with ThreadPoolExecutor(workers) as pool:
        for room, text, done in _texts(path, spare):
            pending.append((pool.submit(_parse, text), room, done))
            if len(pending) > workers:
                yield _first(pending, spare)
        while pending:
            yield _first(pending, spare)


def _first(
    pending: deque[tuple[Future[EntryBatch], Bytes, int]], spare: list[Bytes]
) -> tuple[EntryBatch, int]:
    """Return what the first piece named, when it is read, and spare its room."""
    future, room, done = pending.popleft()
    found = future.result()
    spare.append(room)
    return found, done


def _texts(path: Path, spare: list[Bytes]) -> Iterator[tuple[Bytes, Bytes, int]]:
    """Yield a file in pieces that end with a line end.

    Each comes with the room it lies in, for whoever is done with the piece to add to `spare`: fresh
    memory costs as much as reading. The third value is how many bytes have been read.
    """
    rest = np.zeros(0, np.uint8)
    with path.open("rb", buffering=0) as file:
        while True:
            room = spare.pop() if spare else np.empty(2 * BLOCK_BYTES, np.uint8)
            room[: len(rest)] = rest
            count = file.readinto(room[len(rest) : len(rest) + BLOCK_BYTES].data)
            if not count:
                break
            block = room[: len(rest) + count]
            if file.tell() == count and block[: len(_MARK)].tobytes() == _MARK:
                block = block[len(_MARK) :]
            end = _after_last_line(block)
            if end == 0 and len(block) >= BLOCK_BYTES:
                raise InputError(
                    f"{path} has no line end in {BLOCK_BYTES:,} bytes: expected paths, one a line"
                )
            rest = block[end:].copy()
            if end:
                yield room, block[:end], file.tell()
        if len(rest):
            yield rest, np.append(rest, NEWLINE), file.tell()


def _after_last_line(block: Bytes) -> int:
    """Return where the last whole line of a block ends, 0 if there is none."""
    for stop in range(len(block), 0, -_LONGEST):
        start = max(stop - _LONGEST, 0)
        found = block[start:stop].tobytes().rfind(b"\n")
        if found >= 0:
            return start + found + 1
    return 0


def _parse(text: Bytes) -> EntryBatch:
    """Return what lines name that each end with a line end."""
    found = read_alike(text)
    if found is not None:
        return found
    raw = text.tobytes()
    return _parse_lines(raw.replace(b"\r\n", b"\n") if b"\r" in raw else raw)


def _parse_lines(text: bytes) -> EntryBatch:
    """Return what lines of any kind name that each end with a line feed."""
    keys = _lines(np.frombuffer(text, np.uint8))
    try:
        keys.validate(full=True)
    except pa.ArrowInvalid:
        return _parse_bytes(text)
    return parse_names(keys)


def _parse_bytes(text: bytes) -> EntryBatch:
    """Return what lines name of which some are no UTF-8; those get a fault."""
    lines = [line for line in text.split(b"\n") if line]
    shown = [line.decode("utf-8", "backslashreplace") for line in lines]
    found = parse_names(pa.array(shown, pa.string()))
    is_text = np.array([key.encode() == line for key, line in zip(shown, lines, strict=True)])
    found.faults[~is_text] = SkipReason.NOT_TEXT
    return found


def _lines(text: Bytes) -> pa.StringArray:
    """Return the lines of a text, blank ones left out."""
    length = int(np.argmax(text[:_LONGEST] == NEWLINE))
    rows, remainder = divmod(len(text), length + 1)
    if length > 0 and remainder == 0 and np.count_nonzero(text == NEWLINE) == rows:
        lines = text.reshape(rows, length + 1)
        if (lines[:, length] == NEWLINE).all():
            # Lines of one length, as SF-XL's are: cutting a column off a matrix beats splitting.
            offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(length)
            body = np.ascontiguousarray(lines[:, :length])
            return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(body))
    ends = np.array([0, len(text) - 1], np.int32)
    whole = pa.StringArray.from_buffers(1, pa.py_buffer(ends), pa.py_buffer(text))
    lines = pc.list_flatten(pc.split_pattern(whole, "\n"))
    return lines.filter(pc.greater(pc.binary_length(lines), 0))
