"""Reading images from loose files or from packs: HDF5 shards with thousands of encoded images each.

A pack is a folder of shards and a manifest with the shard and the slot of each
image in two integer columns, `SHARD` and `SLOT`. In a shard the dataset
``images`` holds the encoded images one after the other, ``offsets`` (n + 1)
where each begins, ``key`` their keys, and ``reason`` why an image could not be
read when the pack was made; such an image has no bytes. It is "" for the others.
``crc32`` holds a checksum of each image, the attribute ``digest`` one of these lists.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from stages.errors import InputError
from stages.images.read import UnreadableImage, decode_image, read_content, read_image
from stages.index.manifest import Manifest

FORMAT = 1
SHARD, SLOT = "pack_shard", "pack_slot"
_OPEN_SHARDS = 16
_VERIFIED_ROWS = 1 << 16
_DAMAGE = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError, OverflowError)
_SEAL, _SEAL_MARK = struct.Struct("<8sQQQ"), b"SEALED\r\n"
DAMAGED = "its bytes in the pack changed since they were written"


@dataclass(frozen=True)
class ImageLocation:
    """Key of one image, and its shard and slot in a pack; -1 for a loose file."""

    key: str
    shard: int = -1
    slot: int = -1


class ImageSource:
    """Reads the images of a manifest, loose or packed. Several threads may share it."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        types = {field.name: field.type for field in manifest.metadata.schema.to_arrow_schema()}
        self.packed = types.get(SHARD) == types.get(SLOT) == pa.int32()
        self._shards: OrderedDict[int, Shard] = OrderedDict()
        self._lock = Lock()

    def locations(self, start: int, stop: int) -> list[ImageLocation]:
        """Return the locations of the images of manifest rows start .. stop - 1."""
        if not self.packed:
            return [ImageLocation(key) for key in self.manifest.keys(start, stop)]
        columns = self.manifest.part(["key", SHARD, SLOT], start, stop).to_pydict()
        return [
            ImageLocation(*values)
            for values in zip(columns["key"], columns[SHARD], columns[SLOT], strict=True)
        ]

    def read(self, location: ImageLocation, *, decode_at_least: int | None = None) -> Image.Image:
        """Return the image: RGB, upright; see `stages.images.read.read_image`.

        Raises
        ------
        UnreadableImage
            If it cannot be read, or could not be read when it was packed; with the same reason.
        """
        if location.shard < 0:
            return read_image(self.manifest.image_path(location.key), decode_at_least=decode_at_least)
        content, path = self.content(location), self.manifest.image_path(location.key)
        return decode_image(content, path, decode_at_least=decode_at_least)

    def content(self, location: ImageLocation) -> bytes:
        """Return the encoded image.

        Raises
        ------
        UnreadableImage
            If the file or the packed image cannot be read.
        """
        path = self.manifest.image_path(location.key)
        if location.shard >= 0:
            return self._shard(location.shard).content(location, path)
        return read_content(path)

    def verify_packs(self) -> int:
        """Read every packed image and return how many there are, 0 for loose files.

        Raises
        ------
        InputError
            If a shard is missing or damaged.
        """
        rows = self.manifest.rows if self.packed else 0
        for start in range(0, rows, _VERIFIED_ROWS):
            for location in self.locations(start, min(start + _VERIFIED_ROWS, rows)):
                try:
                    self.content(location)
                except UnreadableImage as error:
                    if error.reason == DAMAGED:
                        shard = shard_path(self.manifest.root, location.shard)
                        raise InputError(
                            f"{shard} is damaged at {location.key}: run `pipeline pack` again"
                        ) from error
        return rows

    def _shard(self, number: int) -> Shard:
        with self._lock:
            if number not in self._shards:
                self._shards[number] = Shard(shard_path(self.manifest.root, number))
                while len(self._shards) > _OPEN_SHARDS:
                    self._shards.popitem(last=False)
            self._shards.move_to_end(number)
            return self._shards[number]


class Shard:
    """One open shard of a pack.

    HDF5 has one lock for all threads, so it only tells the offset of the bytes, which are read without it.

    Raises
    ------
    InputError
        If the file is missing or not a shard of this format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        try:
            if not is_sealed(path):
                raise ValueError("its bytes changed since they were written")
            with h5py.File(path, "r") as file:
                if file.attrs.get("format") != FORMAT:
                    raise InputError(f"{path} is not a pack of format {FORMAT}: run `pipeline pack` again")
                self.identity = str(file.attrs["identity"])
                self.keys: list[str] = file["key"].asstr()[:].tolist()
                self._offsets = file["offsets"][:].astype(np.int64)
                self.reasons: list[str] = file["reason"].asstr()[:].tolist()
                self._images_offset = file["images"].id.get_offset() or 0
                self._checksums = file["crc32"][:].astype(np.int64) if "crc32" in file else None
                self._require_sound(file.attrs.get("digest"))
            self._descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise InputError(f"{path} does not exist: run `pipeline pack` again, or move it back") from None
        except _DAMAGE as error:
            raise InputError(f"{path} is not a readable pack ({error}): run `pipeline pack` again") from error

    def _require_sound(self, digest: object) -> None:
        """Raise ValueError unless the lists fit together and are those that were written."""
        images = len(self.reasons)
        sound = len(self.keys) == images == len(self._offsets) - 1
        sound = sound and int(self._offsets[0]) == 0 and bool((np.diff(self._offsets) >= 0).all())
        if self._checksums is None:  # packs of earlier versions have none
            sound = sound and digest is None
        else:
            lists = (self.keys, self.reasons, self._offsets, self._checksums)
            sound = sound and len(self._checksums) == images and digest == digest_of(*lists)
        if not sound:
            raise ValueError("its lists differ from those that were written")

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def __len__(self) -> int:
        return len(self.reasons)

    @property
    def size(self) -> int:
        """Bytes of all its images together."""
        return int(self._offsets[-1])

    def content(self, location: ImageLocation, path: Path) -> bytes:
        """Return the encoded image at a location; `path` names it in errors.

        Raises
        ------
        UnreadableImage
            If it could not be read when the pack was made, or the shard is truncated.
        InputError
            If it is another image, because the pack was made again after its manifest was indexed.
        """
        if location.slot >= len(self) or self.keys[location.slot] != location.key:
            raise InputError(
                f"{self.path} does not hold {location.key} in slot {location.slot}: the pack was made again "
                "after it was indexed; run `pipeline index` again"
            )
        if self.reasons[location.slot]:
            raise UnreadableImage(path, self.reasons[location.slot])
        begin, end = self._offsets[location.slot : location.slot + 2].tolist()
        content = os.pread(self._descriptor, end - begin, self._images_offset + begin)
        if len(content) < end - begin:
            raise UnreadableImage(path, f"{self.path.name} ends before it")
        if self._checksums is not None and zlib.crc32(content) != self._checksums[location.slot]:
            raise UnreadableImage(path, DAMAGED)
        return content


def seal(path: Path) -> None:
    """Append a checksum of all but the images to a shard, which HDF5 ignores there.

    HDF5 can loop for ever on damaged metadata, so they are compared before it reads them.
    """
    with h5py.File(path, "r") as file:
        first, size = file["images"].id.get_offset() or 0, file["images"].size
    with path.open("r+b") as shard:
        checksum = _checksum_around(shard, first, size, path.stat().st_size)
        shard.seek(0, os.SEEK_END)
        shard.write(_SEAL.pack(_SEAL_MARK, first, size, checksum))


def is_sealed(path: Path) -> bool:
    """Whether a shard's metadata are those that were sealed; True for shards of earlier versions."""
    with path.open("rb") as shard:
        length = path.stat().st_size - _SEAL.size
        if length < 0:
            return False
        shard.seek(length)
        mark, first, size, checksum = _SEAL.unpack(shard.read(_SEAL.size))
        if mark != _SEAL_MARK:
            return True
        return bool(first + size <= length and _checksum_around(shard, first, size, length) == checksum)


def _checksum_around(shard: BinaryIO, first: int, size: int, length: int) -> int:
    """CRC-32 of a file up to `length`, without `size` bytes from `first`."""
    shard.seek(0)
    before = zlib.crc32(shard.read(first))
    shard.seek(first + size)
    return zlib.crc32(shard.read(max(0, length - first - size)), before)


def digest_of(
    keys: list[str], reasons: list[str], offsets: npt.NDArray[np.int64], checksums: npt.NDArray[np.int64]
) -> str:
    """Return a digest of a shard's lists; the checksums in them stand for the images."""
    text = json.dumps([keys, reasons, offsets.tolist(), checksums.tolist()])
    return hashlib.sha256(text.encode()).hexdigest()


def shard_path(pack: Path, shard: int) -> Path:
    """Return the file of one shard of a pack."""
    return pack / f"{shard:05d}.h5"
