"""Opening of image files: the formats that are read, their names' endings, and JPEGs above Pillow's limit."""

from __future__ import annotations

import errno
import importlib.util
import io
import stat
import warnings
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image, JpegImagePlugin, UnidentifiedImageError

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
    *(".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpx"),
)
"""Endings of names that are taken for images, in lower case. A file's format is told by its content."""

# Pillow knows more formats, but one of them (PostScript) starts another program and others are seldom
# tested. JPEG includes MPO. HEIF has a package of its own and is tried last.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000")
HEIC_MISSING = "a HEIC photo, which needs one more package: run `pip install 'placecache[heic]'`"
LARGEST_JPEG_PX = 1 << 29
"""Largest JPEG, in pixels, that is decoded at a reduced size: more than twice that of any phone."""

_HEIC_READER = "pillow_heif"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# A file that claims to be larger than Pillow's limit is an error instead of a warning. This is set once
# here, because warning filters belong to the process and threads cannot change them safely.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


_KINDS = {
    stat.S_IFDIR: "directory",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


class HeicReaderMissing(UnidentifiedImageError):
    """The file is HEIC and no reader for it is installed."""


def require_file(path: Path) -> int:
    """Return the size of a file in bytes; opening a FIFO, socket or device could wait forever.

    Raises
    ------
    OSError
        If it does not exist or is not a file.
    """
    status = path.stat()
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"a {_KINDS.get(kind, 'special file')}, not a file", str(path))
    return status.st_size


def open_picture(source: Path | bytes, *, decode_at_least: int | None = None) -> Image.Image:
    """Return the opened image of a file, before its pixels are read; close it after use.

    Parameters
    ----------
    source : Path or bytes
        An image file, or its content.
    decode_at_least : int, optional
        Allow a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides keep this
        many pixels. JPEGs above Pillow's limit are then accepted if they are below it once reduced.

    Raises
    ------
    HeicReaderMissing
        If it is a HEIC photo and no reader for it is installed.
    PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning
        If it has more pixels than the limit.
    Exception
        If it is missing, not a file or not an image: decoders raise errors of any type.
    """
    if isinstance(source, Path):
        require_file(source)
    try:
        image: Image.Image = Image.open(_opened(source), formats=_formats())
    except UnidentifiedImageError:
        if not _is_heic(source):
            raise
        image = _open_heic(source)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reduced = None if decode_at_least is None else _large_jpeg(source, decode_at_least)
        if reduced is None:
            raise
        return reduced
    if decode_at_least is not None:
        image.draft(None, (decode_at_least, decode_at_least))
    return image


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Return those of the formats that this version of Pillow knows."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _large_jpeg(source: Path | bytes, decode_at_least: int) -> Image.Image | None:
    """Return a JPEG prepared for decoding at a reduced, safe size; None if that is not possible."""
    with _stream(source) as file:
        if file.read(3) != b"\xff\xd8\xff":
            return None
    # Image.open checks the full size before a reduced one can be requested, so use the class directly.
    image = JpegImagePlugin.JpegImageFile(_opened(source))
    full = image.width * image.height
    image.draft(None, (decode_at_least, decode_at_least))
    if full <= LARGEST_JPEG_PX and image.width * image.height <= (Image.MAX_IMAGE_PIXELS or full):
        return image
    image.close()
    return None


def _is_heic(source: Path | bytes) -> bool:
    with _stream(source) as file:
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS


def _open_heic(source: Path | bytes) -> Image.Image:
    if importlib.util.find_spec(_HEIC_READER) is None:
        raise HeicReaderMissing(HEIC_MISSING)
    import pillow_heif

    pillow_heif.register_heif_opener()
    return Image.open(_opened(source), formats=("HEIF",))


def _opened(source: Path | bytes) -> Path | BinaryIO:
    """Return what Pillow opens; a path stays a path, so that Pillow closes the file itself."""
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _stream(source: Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
