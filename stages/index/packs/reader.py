"""Where images come from: loose files, or packs, HDF5 shards that each hold thousands of encoded images.

A pack is a folder of shards and a manifest that says in two columns of whole
numbers, `SHARD` and `SLOT`, where each image lies. In a shard the encoded
images follow one another in the dataset ``images``; ``offsets`` (n + 1) says
where each begins, ``key`` whose it is and ``reason`` why an image without
bytes could not be read when the pack was made, "" for the others.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import h5py
import numpy as np
import pyarrow as pa
from PIL import Image

from stages.errors import InputError
from stages.images.read import UnreadableImage, decode_image, read_image
from stages.index.manifest import Manifest

FORMAT = 1
SHARD, SLOT = "pack_shard", "pack_slot"
_OPEN_SHARDS = 16


@dataclass(frozen=True)
class ImageLocation:
    """Where one image lies.

    Attributes
    ----------
    key : str
        Key of the image.
    shard, slot : int
        Shard of the pack and place in it; -1 for a loose file.
    """

    key: str
    shard: int = -1
    slot: int = -1


class ImageSource:
    """Reads the images of a manifest, be they loose files or packed. Safe to use from several threads.

    Parameters
    ----------
    manifest : Manifest
        The images.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        types = {field.name: field.type for field in manifest.metadata.schema.to_arrow_schema()}
        self.packed = types.get(SHARD) == types.get(SLOT) == pa.int32()
        self._shards: OrderedDict[int, Shard] = OrderedDict()
        self._lock = Lock()

    def places(self, start: int, stop: int) -> list[ImageLocation]:
        """Return where the images of manifest rows start .. stop - 1 lie."""
        if not self.packed:
            return [ImageLocation(key) for key in self.manifest.keys(start, stop)]
        columns = self.manifest.part(["key", SHARD, SLOT], start, stop).to_pydict()
        return [
            ImageLocation(*values)
            for values in zip(columns["key"], columns[SHARD], columns[SLOT], strict=True)
        ]

    def read(self, place: ImageLocation, *, decode_at_least: int | None = None) -> Image.Image:
        """Return the picture: RGB, upright; see `stages.images.read.read_image`.

        Raises
        ------
        UnreadableImage
            If it cannot be read, or could not when it was packed; with the same reason.
        """
        if place.shard < 0:
            return read_image(self.manifest.image_path(place.key), decode_at_least=decode_at_least)
        content, path = self.content(place), self.manifest.image_path(place.key)
        return decode_image(content, path, decode_at_least=decode_at_least)

    def content(self, place: ImageLocation) -> bytes:
        """Return the encoded image.

        Raises
        ------
        UnreadableImage
            If there is none.
        """
        path = self.manifest.image_path(place.key)
        if place.shard >= 0:
            return self._shard(place.shard).content(place, path)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise UnreadableImage(path, "no such file") from None
        except OSError as error:
            raise UnreadableImage(path, (error.strerror or str(error)).lower()) from error

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

    HDF5 only says where the bytes lie; they are read past its lock, so that threads do not wait
    for one another.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    InputError
        If it is missing or no shard of this format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        try:
            with h5py.File(path, "r") as file:
                if file.attrs.get("format") != FORMAT:
                    raise InputError(f"{path} is no pack of format {FORMAT}: run `pipeline pack` again")
                self.identity = str(file.attrs["identity"])
                self.keys: list[str] = file["key"].asstr()[:].tolist()
                self._offsets = file["offsets"][:].astype(np.int64)
                self.reasons: list[str] = file["reason"].asstr()[:].tolist()
                self._begin = file["images"].id.get_offset() or 0
            self._descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise InputError(f"{path} does not exist: run `pipeline pack` again, or move it back") from None
        except (OSError, KeyError) as error:
            raise InputError(f"{path} is no readable pack ({error}): run `pipeline pack` again") from error

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def __len__(self) -> int:
        return len(self.reasons)

    @property
    def size(self) -> int:
        """Bytes of all its images."""
        return int(self._offsets[-1])

    def content(self, place: ImageLocation, path: Path) -> bytes:
        """Return the encoded image of a place; `path` names it in errors.

        Raises
        ------
        UnreadableImage
            If it could not be read when the pack was made, or the shard is cut off.
        InputError
            If another image lies there: the pack was made anew since its manifest was indexed.
        """
        if place.slot >= len(self) or self.keys[place.slot] != place.key:
            raise InputError(
                f"{self.path} does not hold {place.key} in place {place.slot}: the pack is another one than "
                "the manifest's; run `pipeline index` again"
            )
        if self.reasons[place.slot]:
            raise UnreadableImage(path, self.reasons[place.slot])
        begin, end = self._offsets[place.slot : place.slot + 2].tolist()
        content = os.pread(self._descriptor, end - begin, self._begin + begin)
        if len(content) < end - begin:
            raise UnreadableImage(path, f"{self.path.name} ends before it")
        return content


def shard_path(pack: Path, shard: int) -> Path:
    """Return the file of one shard of a pack."""
    return pack / f"{shard:05d}.h5"
