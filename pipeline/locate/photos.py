"""Photos to locate: which files they are, and what one of them holds, read once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from stages.errors import InputError
from stages.images.read import decode_image, read_content
from stages.index.exif import Photo, read_exif, read_time
from stages.index.sources.folder import keys_below


@dataclass(frozen=True)
class Capture:
    """What EXIF data say of a photo: degrees, ISO 8601 time and camera model; "" if unknown."""

    path: Path
    position: tuple[float, float] | None = None
    timestamp: str = ""
    camera: str = ""


def read_photo(path: Path, *, decode_at_least: int) -> tuple[Capture, Image.Image]:
    """Return the EXIF data and the image of a file, which is read once; see `read_image`."""
    content = read_content(path)
    image = decode_image(content, path, decode_at_least=decode_at_least)
    exif, (timestamp, camera) = read_exif(path, content), read_time(path, content)
    position = (exif.latitude, exif.longitude) if isinstance(exif, Photo) else None
    return Capture(path, position, timestamp, camera), image


def photos_of(paths: Iterable[Path]) -> list[Path]:
    """Return the photos of paths: files as they are, folders as all images below them.

    Raises
    ------
    InputError
        If a folder holds no image.
    """
    photos: list[Path] = []
    for path in paths:
        if not path.is_dir():
            photos.append(path)
            continue
        below = [path / key for key in keys_below(path)]
        if not below:
            raise InputError(f"{path} holds no images: name a folder that contains photos")
        photos += below
    return photos
