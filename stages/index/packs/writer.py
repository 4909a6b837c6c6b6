"""Writing one shard of a pack: a range of images into one HDF5 file, atomically."""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from stages.errors import InputError
from stages.files import hdf5_as_os_errors, replacing, writing_hdf5
from stages.images.read import UnreadableImage, as_unreadable, decode_image
from stages.index.manifest import Manifest
from stages.index.packs.config import PackConfig
from stages.index.packs.reader import FORMAT, ImageLocation, ImageSource, Shard, digest_of, seal, shard_path

_JPEG = b"\xff\xd8\xff"


@dataclass(frozen=True)
class PackedShard:
    """Content of one shard: images, bytes, whether it is new, and key and reason of unreadable images."""

    shard: int
    images: int
    size: int
    made: bool
    unreadable: tuple[tuple[str, str], ...]


def pack_shard(config: PackConfig, manifest: Path, output: Path, number: int) -> PackedShard:
    """Make one shard unless it exists, and return what it holds."""
    source = _source(manifest, manifest.stat().st_mtime_ns)
    first = number * config.images_per_shard
    locations = source.locations(first, min(first + config.images_per_shard, source.manifest.rows))
    identity = identify(config, locations)
    path = shard_path(output, number)
    made = not is_made(path, identity)
    if made:
        _write(path, config, source, locations, identity)
    shard = Shard(path)
    unreadable = [
        (location.key, reason) for location, reason in zip(locations, shard.reasons, strict=True) if reason
    ]
    return PackedShard(number, len(locations), shard.size, made, tuple(unreadable))


def identify(config: PackConfig, locations: list[ImageLocation]) -> str:
    """Return a digest of a shard's images and settings."""
    named = json.dumps([asdict(config), [location.key for location in locations]])
    return hashlib.sha256(named.encode()).hexdigest()


def is_made(path: Path, identity: str) -> bool:
    """Whether the shard exists and has this identity."""
    try:
        return path.exists() and Shard(path).identity == identity
    except InputError:
        return False


def encode(content: bytes, path: Path, config: PackConfig) -> bytes:
    """Return the bytes to pack for the content of a readable file.

    If `config.side` is set, larger images and those that are not JPEGs become upright RGB JPEGs;
    others stay unchanged.

    Raises
    ------
    UnreadableImage
        If the content is not an image, or the image cannot be made a JPEG.
    """
    if not config.side:
        # Decoding at an eighth of the size is fast and still reads every byte.
        decode_image(content, path, decode_at_least=1)
        return content
    image = decode_image(content, path, decode_at_least=2 * config.side)
    short = min(image.size)
    if short <= config.side and content.startswith(_JPEG):
        return content
    buffer = io.BytesIO()
    with as_unreadable(path):  # a side beyond 65,500 pixels is too long for a JPEG
        if short > config.side:
            width, height = (round(side * config.side / short) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=None)
        image.save(buffer, "JPEG", quality=config.quality)
    return buffer.getvalue()


@lru_cache(maxsize=1)
def _source(manifest: Path, mtime_ns: int) -> ImageSource:
    """Return the images of a manifest, opened once per process while it does not change."""
    return ImageSource(Manifest.open(manifest))


def _write(
    path: Path, config: PackConfig, source: ImageSource, locations: list[ImageLocation], identity: str
) -> None:
    images, reasons = [], []
    for location in locations:
        content, reason = b"", ""
        try:
            content = encode(source.content(location), source.manifest.image_path(location.key), config)
        except UnreadableImage as error:
            reason = error.reason
        images.append(content)
        reasons.append(reason)
    offsets = np.cumsum([0, *map(len, images)]).astype(np.int64)
    checksums = np.array([zlib.crc32(image) for image in images], np.int64)
    with replacing(path) as partial:
        with writing_hdf5(partial) as file:
            keys = [location.key for location in locations]
            digest = digest_of(keys, reasons, offsets, checksums)
            file.attrs.update({"format": FORMAT, "identity": identity, "digest": digest, **asdict(config)})
            file["offsets"] = offsets.astype(np.uint64)
            file["crc32"] = checksums
            file["key"] = keys
            file["reason"] = reasons
            file["images"] = np.frombuffer(b"".join(images), np.uint8)
        with hdf5_as_os_errors(partial):
            seal(partial)
