"""Reading of image files of any common kind as upright RGB images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.errors import InputError
from stages.files import printable
from stages.images.formats import HeicReaderMissing, open_picture, require_file


class UnreadableImage(InputError):
    """A file cannot be read as an image; `reason` is a few words without the path."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def read_image(path: Path, *, decode_at_least: int | None = None) -> Image.Image:
    """Return the image in a file: RGB, turned upright by its EXIF orientation.

    Greyscale, palette, CMYK and 16-bit images are converted, 16-bit greyscale by scaling.
    Transparent pixels become white.

    Parameters
    ----------
    path : Path
        An image file.
    decode_at_least : int, optional
        Allow a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides keep this many
        pixels: several times faster for large photos.

    Raises
    ------
    UnreadableImage
        If the file is missing, empty, truncated, too large, not a file or not an image.
    """
    return _decode(path, path, decode_at_least)


def decode_image(content: bytes, path: Path, *, decode_at_least: int | None = None) -> Image.Image:
    """Return the image in a file's content; `path` names it in errors. See `read_image`."""
    return _decode(content, path, decode_at_least)


def read_content(path: Path) -> bytes:
    """Return the content of an image file.

    Raises
    ------
    UnreadableImage
        If it cannot be read or is not a file.
    """
    with as_unreadable(path):
        require_file(path)
        return path.read_bytes()


@contextmanager
def as_unreadable(path: Path) -> Iterator[None]:
    """Raise UnreadableImage for whatever the block raises: decoders raise errors of any type."""
    try:
        yield
    except UnreadableImage:
        raise
    except FileNotFoundError:
        raise UnreadableImage(path, "no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(path, "more pixels than the safe limit") from error
    except Exception as error:
        raise UnreadableImage(path, _reason(error, path)) from error


def _decode(source: Path | bytes, path: Path, decode_at_least: int | None) -> Image.Image:
    with as_unreadable(path):
        if not (len(source) if isinstance(source, bytes) else require_file(source)):
            raise UnreadableImage(path, "empty file")
        with open_picture(source, decode_at_least=decode_at_least) as image:
            return upright_rgb(image, path)
    raise AssertionError  # the block returns or raises


def upright_rgb(image: Image.Image, path: Path) -> Image.Image:
    """Return a copy of an opened image: RGB, turned upright; `path` names it in errors. See `read_image`."""
    with as_unreadable(path):
        image.load()
        return _rgb(_upright(image, path))
    raise AssertionError  # the block returns or raises


def _upright(image: Image.Image, path: Path) -> Image.Image:
    try:
        with as_unreadable(path):
            return ImageOps.exif_transpose(image)
    except UnreadableImage:  # only the EXIF data is damaged: keep the image as it is
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image.copy()
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("grey values beyond 16 bits")
        return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating point pixels")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception, path: Path) -> str:
    text = printable(" ".join(str(error).replace(str(path), "").split())) or type(error).__name__
    if isinstance(error, HeicReaderMissing):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if "truncated" in text.lower():
        return "truncated file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return text[:120]
