"""Photos to locate: which files they are, and what a file, bytes, an image or an array holds."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from stages.errors import InputError
from stages.images.read import UnreadableImage, as_unreadable, decode_image, read_content, upright_rgb
from stages.index.exif import Photo, exif_of, photo_of, time_and_camera
from stages.index.sources.folder import keys_below

PhotoSource = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | npt.NDArray[np.uint8] | Tensor
"""A path, the content of an image file, a binary file object, an image of Pillow, RGB pixels (H, W, 3) of
uint8, or a tensor (3, H, W) of uint8 or of floats from 0 to 1."""


@dataclass(frozen=True)
class Capture:
    """What EXIF data say of a photo: degrees, ISO 8601 time and camera model; "" if unknown."""

    path: Path
    position: tuple[float, float] | None = None
    timestamp: str = ""
    camera: str = ""


def read_photo(
    photo: PhotoSource, *, decode_at_least: int, name: str | None = None
) -> tuple[Capture, Image.Image]:
    """Return the EXIF data of a photo and its upright RGB image.

    Parameters
    ----------
    photo : PhotoSource
        What to read; a file object is read from where it stands and stays open.
    decode_at_least : int
        Large JPEGs in files and bytes are decoded at a reduced size, see `read_image`.
    name : str, optional
        Path in answers and errors; by default that of the file, or a word such as "<bytes>".

    Raises
    ------
    UnreadableImage
        If there is no readable image.
    InputError
        If it is nothing that `PhotoSource` lists.
    """
    path = Path(name or _name_of(photo))
    match photo:
        case str() | os.PathLike():
            source: bytes | Image.Image = read_content(Path(photo))
        case bytes() | bytearray() | memoryview():
            source = bytes(photo)
        case Image.Image():
            source = photo
        case np.ndarray():
            source = _image_of_array(photo)
        case Tensor():
            source = _image_of_tensor(photo)
        case _:
            source = _content_of(photo, path)
    if isinstance(source, bytes):
        image = decode_image(source, path, decode_at_least=decode_at_least)
    elif 0 in source.size:
        raise UnreadableImage(path, f"{source.width} x {source.height} pixels")
    else:
        image = upright_rgb(source, path)
    return _capture(path, source), image


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


def _name_of(photo: Any) -> str:
    if isinstance(photo, str | os.PathLike):
        return os.fspath(photo)
    name = getattr(photo, "filename" if isinstance(photo, Image.Image) else "name", None)
    return name if isinstance(name, str) and name else f"<{type(photo).__name__}>"


def _capture(path: Path, source: bytes | Image.Image) -> Capture:
    """Return what the EXIF data of a readable image say; nothing if the EXIF data is damaged."""
    try:
        exif = exif_of(path, source)
    except UnreadableImage:
        return Capture(path)
    taken = photo_of(exif)
    position = (taken.latitude, taken.longitude) if isinstance(taken, Photo) else None
    return Capture(path, position, *time_and_camera(exif))


def _content_of(photo: Any, path: Path) -> bytes:
    if not hasattr(photo, "read"):
        raise InputError(
            f"a photo is a {type(photo).__name__}: expected a path, bytes, a binary file object, an image of "
            "Pillow, an array (H, W, 3) or a tensor (3, H, W)"
        )
    with as_unreadable(path):
        content = photo.read()
    if not isinstance(content, bytes):
        raise InputError(f'{path} is not open as a binary file: open it with mode "rb"')
    return content


def _image_of_array(pixels: npt.NDArray[Any]) -> Image.Image:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise InputError(
            f"a photo is an array of shape {pixels.shape} and type {pixels.dtype}: expected RGB pixels of "
            "shape (height, width, 3) and type uint8"
        )
    return Image.fromarray(pixels)


def _image_of_tensor(pixels: Tensor) -> Image.Image:
    fits = pixels.ndim == 3 and pixels.shape[0] == 3
    if fits and pixels.is_floating_point():
        fits = bool(((pixels >= 0) & (pixels <= 1)).all())
        pixels = (pixels.detach() * 255).round()
    elif pixels.dtype != torch.uint8:
        fits = False
    if not fits:
        raise InputError(
            f"a photo is a tensor of shape {tuple(pixels.shape)} and type {pixels.dtype}: expected RGB "
            "pixels of shape (3, height, width), uint8 or floats from 0 to 1, before any normalisation"
        )
    return Image.fromarray(pixels.to("cpu", torch.uint8).permute(1, 2, 0).numpy())
