"""Text files as UTF-8, block by block: UTF-16 and UTF-32 with their mark are converted."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from stages.errors import InputError

# In this order, because the mark of UTF-16 begins that of UTF-32.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HEAD_BYTES = 1 << 12


def encoding_of(path: Path) -> str:
    """Return "utf-8", or the encoding that the mark at the start of a file names.

    Raises
    ------
    InputError
        If the file looks like UTF-16 without a mark.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if b"\0" in head:
        raise InputError(f"{path} looks like UTF-16 without its mark, or is no text: {fix(path)}")
    return "utf-8"


def fix(path: Path) -> str:
    """Return how to give a file the right encoding."""
    return "save it as CSV UTF-8" if path.suffix.lower() == ".csv" else "save it as UTF-8"


def whole_lines(path: Path, encoding: str, block_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Yield blocks of whole lines in UTF-8, and the number of bytes read so far.

    Lines end in LF, in CRLF or, in a file without LF, in CR. The last line may lack its end. Bytes that
    are not UTF-8 are passed on as they are.

    Raises
    ------
    InputError
        If the bytes are not of the encoding that the file's mark names.
    """
    decoder = codecs.getincrementaldecoder(encoding)() if encoding.startswith(("utf-16", "utf-32")) else None
    rest = b""
    with path.open("rb") as file:
        while block := file.read(block_bytes):
            if decoder is not None:
                block = _converted(block, decoder, path, encoding)
            elif file.tell() == len(block):
                block = block.removeprefix(codecs.BOM_UTF8)
            text = rest + block
            end = text.rfind(b"\n") + 1 or text.rfind(b"\r") + 1
            rest = text[end:]
            if end:
                yield text[:end], file.tell()
        if decoder is not None:
            rest += _converted(b"", decoder, path, encoding)
        if rest:
            yield rest, file.tell()


def _converted(block: bytes, decoder: codecs.IncrementalDecoder, path: Path, encoding: str) -> bytes:
    """Return the next bytes in UTF-8; no bytes mean the end of the file."""
    try:
        return decoder.decode(block, final=not block).encode()
    except UnicodeError as error:
        raise InputError(f"{path} begins as {encoding.upper()}, but is not ({error}): {fix(path)}") from error
