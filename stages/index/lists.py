"""A list of SF-XL paths, one a line -> batches with positions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stages.errors import InputError
from stages.index.found import Fault, Found
from stages.index.names import parse_names

BLOCK_BYTES = 1 << 26
NEWLINE = np.uint8(ord("\n"))
_LONGEST = 1 << 16
_MARK = b"\xef\xbb\xbf"


def found_in_list(path: Path) -> Iterator[tuple[Found, int]]:
    """Yield what the lines of a text file name, in the file's order, and how many bytes have been read.

    Blank lines count for nothing; a line may end in LF or CRLF.
    """
    buffer = bytearray(BLOCK_BYTES)
    held = done = 0
    with path.open("rb") as file:
        while count := file.readinto(memoryview(buffer)[held:]):
            filled = held + count
            first = len(_MARK) if done == 0 and buffer.startswith(_MARK) else 0
            done += count
            end = buffer.rfind(b"\n", 0, filled) + 1
            if end == 0 and filled == len(buffer):
                raise InputError(
                    f"{path} has no line end in {filled:,} bytes: expected a list of paths, one a line"
                )
            if end > first:
                text = memoryview(buffer)[first:end]
                if buffer.find(b"\r", 0, end) >= 0:
                    text = memoryview(text.tobytes().replace(b"\r\n", b"\n"))
                yield _parse(text), done
            buffer[: filled - end] = buffer[end:filled]
            held = filled - end
    if held:
        last = bytes(buffer[:held]).removeprefix(_MARK).removesuffix(b"\r")
        yield _parse(memoryview(last + b"\n")), done


def _parse(text: memoryview) -> Found:
    """Return what lines name that each end with a line end."""
    keys = _lines(np.frombuffer(text, np.uint8))
    try:
        keys.validate(full=True)
    except pa.ArrowInvalid:
        return _parse_bytes(text.tobytes())
    return parse_names(keys)


def _parse_bytes(text: bytes) -> Found:
    """Return what lines name of which some are no UTF-8; those get a fault."""
    lines = [line for line in text.split(b"\n") if line]
    shown = [line.decode("utf-8", "backslashreplace") for line in lines]
    found = parse_names(pa.array(shown, pa.string()))
    is_text = np.array([key.encode() == line for key, line in zip(shown, lines, strict=True)])
    found.faults[~is_text] = Fault.NOT_TEXT
    return found


def _lines(text: npt.NDArray[np.uint8]) -> pa.StringArray:
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
