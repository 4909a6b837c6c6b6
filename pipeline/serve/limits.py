"""What a request may cost: bytes, photos, pixels, time and memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stages.images.formats import open_picture
from stages.images.read import UnreadableImage, as_unreadable

MOST_SCANS = 100
"""Scans of a JPEG. Cameras write one and progressive JPEGs about ten; each costs a pass over all pixels."""
_START_OF_SCAN = b"\xff\xda"
_UPLOADS_BYTES = 1 << 30


@dataclass(frozen=True)
class Limits:
    """Limits of one request; `photo_bytes` and `pixels` hold for each photo, `seconds` for all of it."""

    photo_bytes: int
    photos: int
    pixels: int
    seconds: float


class Busy(Exception):
    """The photos of all requests together need more memory than they may use."""


class UploadMemory:
    """Counts the bytes of all uploads in memory."""

    def __init__(self, most_bytes: int = _UPLOADS_BYTES) -> None:
        self.most_bytes = most_bytes
        self.used_bytes = 0

    @contextmanager
    def share(self) -> Iterator[UploadShare]:
        """Give a request its share, which is free again at the end."""
        share = UploadShare(self)
        try:
            yield share
        finally:
            self.used_bytes -= share.used_bytes


class UploadShare:
    """The memory that one request uses."""

    def __init__(self, memory: UploadMemory) -> None:
        self._memory = memory
        self.used_bytes = 0

    def add(self, more_bytes: int) -> None:
        """Count more bytes; Busy if they are too many."""
        if self._memory.used_bytes + more_bytes > self._memory.most_bytes:
            raise Busy
        self._memory.used_bytes += more_bytes
        self.used_bytes += more_bytes


def require_decodable(content: bytes, path: Path, pixels: int) -> None:
    """Reject a photo that would take much memory or time to decode, by its header.

    Raises
    ------
    UnreadableImage
        If it is not an image, has more pixels, or is a JPEG with very many scans.
    """
    with as_unreadable(path):
        if not content:
            raise UnreadableImage(path, "empty file")
        with open_picture(content) as image:
            if image.width * image.height > pixels:
                size = f"{image.width:,} x {image.height:,} pixels"
                raise UnreadableImage(path, f"{size}, more than {pixels / 1e6:g} megapixels")
            # In compressed data the byte FF is always followed by 00, so each of these pairs is a scan.
            if image.format in {"JPEG", "MPO"} and content.count(_START_OF_SCAN) > MOST_SCANS:
                raise UnreadableImage(path, f"a JPEG with more than {MOST_SCANS} scans")
