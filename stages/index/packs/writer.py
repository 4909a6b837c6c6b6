"""One shard of a pack: a range of images in, an HDF5 file out, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from stages.errors import InputError
from stages.files import replacing
from stages.images.read import UnreadableImage, decode_image
from stages.index.manifest import Manifest
from stages.index.packs.config import PackConfig
from stages.index.packs.reader import FORMAT, ImageLocation, ImageSource, Shard, shard_path

_JPEG = b"\xff\xd8\xff"


@dataclass(frozen=True)
class Packed:
    """What a shard holds.

    Attributes
    ----------
    shard, images : int
        Number of the shard and how many images have a place in it.
    size : int
        Bytes of the images.
    made : bool
        Whether it was made now, and not before.
    unreadable : tuple of (str, str)
        Key of each image without bytes, and why.
    """

    shard: int
    images: int
    size: int
    made: bool
    unreadable: tuple[tuple[str, str], ...]


def pack_shard(config: PackConfig, manifest: Path, output: Path, number: int) -> Packed:
    """Make one shard unless it is there, and return what it holds."""
    source = _source(manifest, manifest.stat().st_mtime_ns)
    first = number * config.images_per_shard
    places = source.places(first, min(first + config.images_per_shard, source.manifest.rows))
    identity = identify(config, places)
    path = shard_path(output, number)
    made = not is_made(path, identity)
    if made:
        _write(path, config, source, places, identity)
    shard = Shard(path)
    faults = [(place.key, reason) for place, reason in zip(places, shard.reasons, strict=True) if reason]
    return Packed(number, len(places), shard.size, made, tuple(faults))


def identify(config: PackConfig, places: list[ImageLocation]) -> str:
    """Return what tells a shard of these images and settings from any other."""
    named = json.dumps([asdict(config), [place.key for place in places]])
    return hashlib.sha256(named.encode()).hexdigest()


def is_made(path: Path, identity: str) -> bool:
    """Whether the shard is there and of this identity."""
    try:
        return path.exists() and Shard(path).identity == identity
    except InputError:
        return False


def encode(content: bytes, path: Path, config: PackConfig) -> bytes:
    """Return the bytes to pack for a file's content, once it is known to be readable.

    With `config.side`, larger images, and those that are no JPEG, become upright RGB JPEGs; others
    stay as they are.

    Raises
    ------
    UnreadableImage
        If the content is no picture.
    """
    if not config.side:
        decode_image(content, path, decode_at_least=1)  # at an eighth of its size: quick, yet all is read
        return content
    image = decode_image(content, path, decode_at_least=2 * config.side)
    short = min(image.size)
    if short <= config.side and content.startswith(_JPEG):
        return content
    if short > config.side:
        width, height = (round(side * config.side / short) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=None)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=config.quality)
    return buffer.getvalue()


@lru_cache(maxsize=1)
def _source(manifest: Path, mtime_ns: int) -> ImageSource:
    """Return the images of a manifest, opened once per process while it does not change."""
    return ImageSource(Manifest.open(manifest))


def _write(
    path: Path, config: PackConfig, source: ImageSource, places: list[ImageLocation], identity: str
) -> None:
    images, reasons = [], []
    for place in places:
        content, reason = b"", ""
        try:
            content = encode(source.content(place), source.manifest.image_path(place.key), config)
        except UnreadableImage as error:
            reason = error.reason
        images.append(content)
        reasons.append(reason)
    offsets = np.cumsum([0, *map(len, images)]).astype(np.uint64)
    with replacing(path) as partial, h5py.File(partial, "w") as file:
        file.attrs.update({"format": FORMAT, "identity": identity, **asdict(config)})
        file["offsets"] = offsets
        file["key"] = [place.key for place in places]
        file["reason"] = reasons
        file["images"] = np.frombuffer(b"".join(images), np.uint8)
