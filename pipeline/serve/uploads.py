"""Photos in the multipart body of a request, read within limits and without temporary files."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import HTTPException, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from pipeline.serve.limits import Busy, Limits, UploadShare

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "photo"
_MOST_NAME = 255
_REST_OF_PART_BYTES = 1 << 16
"""What a part may hold besides the photo: its headers and other fields of a form."""


@dataclass
class Upload:
    """One photo of a request: its name, and its bytes unless it is too large."""

    name: str
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0
    too_large: bool = False

    @property
    def path(self) -> Path:
        """The name as the path that answers and errors state; nothing is read from there."""
        return Path(self.name)

    @property
    def content(self) -> bytes:
        """The bytes of the photo; none if it is too large."""
        return b"".join(self.chunks)


async def read_uploads(request: Request, limits: Limits, share: UploadShare) -> list[Upload]:
    """Return the photos of a request; a photo above the limit of bytes is kept without its content.

    Raises
    ------
    HTTPException
        400 for a broken body, 413 for a request that is too large, 415 for another type, 422 without photos,
        503 if the photos of all requests together fill the memory.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise HTTPException(415, f"expected multipart/form-data with one or several fields {FIELD!r}")
    most_bytes = limits.photos * (limits.photo_bytes + _REST_OF_PART_BYTES)
    parts = _Parts(limits, share)
    try:
        parser = MultipartParser(options[b"boundary"], parts.callbacks())
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > most_bytes:
                raise HTTPException(413, f"the request is larger than {most_bytes / 1e6:.0f} MB")
            parser.write(chunk)
        parser.finalize()
    except (FormParserError, UnicodeError) as error:
        raise HTTPException(400, f"the multipart body is damaged: {error}") from None
    except ClientDisconnect:
        raise HTTPException(400, "the connection was closed before the end of the body") from None
    except Busy:
        raise HTTPException(503, "busy: too many photos at once", {"Retry-After": "1"}) from None
    if not parts.complete:
        raise HTTPException(400, "the multipart body is damaged: its last boundary is missing")
    if not parts.uploads:
        raise HTTPException(422, f"no photo: expected one or several multipart fields {FIELD!r}")
    return parts.uploads


class _Parts:
    """Collects the photos while the parser reads the body."""

    def __init__(self, limits: Limits, share: UploadShare) -> None:
        self.uploads: list[Upload] = []
        self._limits = limits
        self._share = share
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._current: Upload | None = None
        self.complete = False

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self.part_begin,
            "on_header_field": self.header_field,
            "on_header_value": self.header_value,
            "on_header_end": self.header_end,
            "on_headers_finished": self.headers_finished,
            "on_part_data": self.part_data,
            "on_end": self.end,
        }

    def part_begin(self) -> None:
        self._headers, self._current = {}, None

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        if options.get(b"name") != FIELD.encode():
            return
        if len(self.uploads) == self._limits.photos:
            raise HTTPException(413, f"more than {self._limits.photos} photos in one request")
        name = options.get(b"filename", b"").decode("utf-8", "replace")[:_MOST_NAME]
        self._current = Upload(self._unused(name.replace("\0", "") or FIELD))
        self.uploads.append(self._current)

    def _unused(self, name: str) -> str:
        """Return a name whose path no other photo of the request has: phones give all the same."""
        taken = {upload.path for upload in self.uploads}
        names = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
        return next(each for each in names if Path(each) not in taken)

    def part_data(self, data: bytes, start: int, end: int) -> None:
        upload = self._current
        if upload is None or upload.too_large:
            return
        upload.size += end - start
        if upload.size > self._limits.photo_bytes:
            upload.too_large = True
            upload.chunks.clear()
            return
        self._share.add(end - start)
        upload.chunks.append(data[start:end])

    def end(self) -> None:
        self.complete = True
