"""A text file of SF-XL paths, one a line."""

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
from stages.index.batch import EntryBatch
from stages.index.skipped import SkipReason
from stages.index.sources.encoding import encoding_of, whole_lines
from stages.index.sources.sfxl_name_layouts import Bytes
from stages.index.sources.sfxl_names import parse_names, parse_uniform_lines

BLOCK_BYTES = 1 << 23  # for larger blocks the allocator fetches new pages each time
MAX_WORKERS = 8
NEWLINE = np.uint8(ord("\n"))
_SEARCH_BYTES = 1 << 16
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_list(path: Path) -> Iterator[tuple[EntryBatch, int]]:
    """Yield the entries in the file's order, and the number of bytes read so far.

    Blank lines are ignored; a line may end in LF or CRLF.

    Raises
    ------
    InputError
        If the file has no line ends.
    """
    workers = min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    pending: deque[tuple[Future[EntryBatch], Bytes, int]] = deque()
    spare: list[Bytes] = []
    with ThreadPoolExecutor(workers) as pool:
        for buffer, text, done in blocks(path, spare):
            pending.append((pool.submit(parse_lines, text), buffer, done))
            if len(pending) > workers:
                yield _next_result(pending, spare)
        while pending:
            yield _next_result(pending, spare)


def _next_result(
    pending: deque[tuple[Future[EntryBatch], Bytes, int]], spare: list[Bytes]
) -> tuple[EntryBatch, int]:
    """Wait for the oldest block, and return its buffer to the spare ones."""
    future, buffer, done = pending.popleft()
    batch = future.result()
    spare.append(buffer)
    return batch, done


def blocks(path: Path, spare: list[Bytes]) -> Iterator[tuple[Bytes, Bytes, int]]:
    """Yield a buffer, the whole lines in it, and the number of bytes read so far.

    Append a buffer to `spare` when its lines are parsed: allocating a new one costs as much as reading.
    """
    encoding = encoding_of(path)
    if not encoding.startswith("utf-8"):
        for converted, done in whole_lines(path, encoding, BLOCK_BYTES):
            yield np.zeros(0, np.uint8), np.frombuffer(converted.rstrip(b"\n") + b"\n", np.uint8), done
        return
    rest = np.zeros(0, np.uint8)
    with path.open("rb", buffering=0) as file:
        while True:
            buffer = spare.pop() if spare else np.empty(2 * BLOCK_BYTES, np.uint8)
            buffer[: len(rest)] = rest
            count = file.readinto(buffer[len(rest) : len(rest) + BLOCK_BYTES].data)
            if not count:
                break
            block = buffer[: len(rest) + count]
            if file.tell() == count and block[: len(_BYTE_ORDER_MARK)].tobytes() == _BYTE_ORDER_MARK:
                block = block[len(_BYTE_ORDER_MARK) :]
            end = _after_last_line(block)
            if end == 0 and len(block) >= BLOCK_BYTES:
                raise InputError(
                    f"{path} has no line end in {BLOCK_BYTES:,} bytes: expected paths, one a line"
                )
            rest = block[end:].copy()
            if end:
                yield buffer, block[:end], file.tell()
        if len(rest):
            yield rest, np.append(rest, NEWLINE), file.tell()


def _after_last_line(block: Bytes) -> int:
    """Return the end of the last whole line of a block, 0 if there is none."""
    for stop in range(len(block), 0, -_SEARCH_BYTES):
        start = max(stop - _SEARCH_BYTES, 0)
        line_end = block[start:stop].tobytes().rfind(b"\n")
        if line_end >= 0:
            return start + line_end + 1
    return 0


def parse_lines(text: Bytes) -> EntryBatch:
    """Return the entries that lines name, each with a line end; a line that is not UTF-8 is skipped."""
    batch = parse_uniform_lines(text)
    if batch is not None:
        return batch
    raw = text.tobytes().replace(b"\r\n", b"\n")
    keys = _lines(np.frombuffer(raw, np.uint8))
    try:
        keys.validate(full=True)
    except pa.ArrowInvalid:
        return _parse_bytes(raw)
    return parse_names(keys)


def _parse_bytes(text: bytes) -> EntryBatch:
    """Return the entries that lines name of which some are not UTF-8."""
    lines = [line for line in text.split(b"\n") if line]
    shown = [line.decode("utf-8", "backslashreplace") for line in lines]
    batch = parse_names(pa.array(shown, pa.string()))
    is_text = np.array([key.encode() == line for key, line in zip(shown, lines, strict=True)])
    batch.skip_reasons[~is_text] = SkipReason.NOT_TEXT
    return batch


def _lines(text: Bytes) -> pa.StringArray:
    """Return the lines that are not blank."""
    ends = np.array([0, len(text) - 1], np.int32)
    joined = pa.StringArray.from_buffers(1, pa.py_buffer(ends), pa.py_buffer(text))
    lines = pc.list_flatten(pc.split_pattern(joined, "\n"))
    return lines.filter(pc.greater(pc.binary_length(lines), 0))
