"""Photos from files: any common kind in, upright RGB out; and a backbone's own preprocessing."""

from __future__ import annotations

import struct
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.errors import InputError
from stages.images.formats import HeicReaderMissing, open_picture

_LONGEST_STRIP = 32
"""Long side over short side up to which an image is resized whole."""

# What Pillow raises on damaged files, beside its own UnidentifiedImageError (an OSError).
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, struct.error, zlib.error)


class UnreadableImage(InputError):
    """A file gives no picture.

    Parameters
    ----------
    path : Path
        The file.
    reason : str
        Why, in a few words, without the path.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def read_image(path: Path, *, decode_at_least: int | None = None) -> Image.Image:
    """Return the picture in a file: RGB, upright as its EXIF orientation says.

    Greyscale, palette, CMYK and 16-bit pictures are converted, 16-bit greyscale by scaling; what is
    transparent becomes white.

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
        If the file is missing, empty, truncated, too large or no image.
    """
    return _picture(path, path, decode_at_least)


def decode_image(content: bytes, path: Path, *, decode_at_least: int | None = None) -> Image.Image:
    """Return the picture in a file's content; `path` names it in errors. See `read_image`."""
    return _picture(content, path, decode_at_least)


def _picture(source: Path | bytes, path: Path, decode_at_least: int | None) -> Image.Image:
    try:
        if not (len(source) if isinstance(source, bytes) else source.stat().st_size):
            raise UnreadableImage(path, "empty file")
        with open_picture(source, decode_at_least=decode_at_least) as image:
            image.load()
            return _rgb(_upright(image))
    except FileNotFoundError:
        raise UnreadableImage(path, "no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(path, "more pixels than the safe limit") from error
    except DAMAGE as error:
        raise UnreadableImage(path, _reason(error, path)) from error


@dataclass(frozen=True)
class Preprocess:
    """A backbone's own standard preprocessing, up to the normalisation, which happens on the device.

    The shorter side is resized to `resize` pixels (bicubic, antialiased), then the centre square of
    `image_size` pixels is cut out. Smaller images are enlarged by the same rule. Large JPEGs are
    decoded at a reduced size first, never below `decode_at_least` pixels.
    """

    image_size: int
    resize: int
    interpolation: str
    decode_at_least: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Return the pixels of an RGB image: (S, S, 3) uint8."""
        image = _without_far_ends(image)
        width, height = image.size
        short = min(width, height)
        scaled = (self.resize * width // short, self.resize * height // short)
        if scaled != image.size:
            image = image.resize(scaled, Image.Resampling.BICUBIC)
        left = round((scaled[0] - self.image_size) / 2)
        top = round((scaled[1] - self.image_size) / 2)
        image = image.crop((left, top, left + self.image_size, top + self.image_size))
        return np.array(image, dtype=np.uint8)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the recipe."""
        return asdict(self)


def _without_far_ends(image: Image.Image) -> Image.Image:
    """Cut the ends off an image that is a strip, whose resized length would fill the memory."""
    width, height = image.size
    reach = _LONGEST_STRIP * min(width, height)
    if max(width, height) <= reach:
        return image
    left, top = max(0, (width - reach) // 2), max(0, (height - reach) // 2)
    return image.crop((left, top, left + min(width, reach), top + min(height, reach)))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except DAMAGE:  # the picture itself is sound: damaged EXIF says nothing of its orientation
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
    text = " ".join(str(error).replace(str(path), "").split()) or type(error).__name__
    if isinstance(error, HeicReaderMissing):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if "truncated" in text.lower():
        return "truncated file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return text[:120]
