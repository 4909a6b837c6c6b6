"""Which photos the exemplars are: their keys and positions, to show what an answer is based on.

The file holds names and positions, no pictures. Answers do not depend on it: a localiser works without it, so
it can be deleted before a localiser is given away.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.errors import InputError
from stages.files import note_of, open_parquet, path_at_home, sha256_of, write_table
from stages.index.manifest import Manifest
from stages.index.manifest_writer import root_text

NAME = "exemplars.parquet"
SHARED = "SHA256SUMS"
"""A file of localisers that were pushed or pulled: the folder of their photos is that of another machine."""
_PHOTOS_OF_SHARED = "photos"
_MADE_BY = "pipeline train-heads"


@dataclass(frozen=True)
class ExemplarPhotos:
    """The photos of all places, sorted by place.

    Attributes
    ----------
    place_id : ndarray of int64, shape (E,)
        Place of each photo.
    keys : pyarrow.Array, shape (E,)
        Keys in the database.
    positions : ndarray of float64, shape (E, 2)
        UTM east and north in metres.
    root : Path
        Folder that the keys are relative to; `photos` in the folder of a shared localiser.
    shared : bool
        Whether others made the localiser: no file outside the root is read for them.
    """

    place_id: npt.NDArray[np.int64]
    keys: pa.Array
    positions: npt.NDArray[np.float64]
    root: Path
    shared: bool = False

    @classmethod
    def of(
        cls, manifest: Manifest, rows: npt.NDArray[np.int64], place_id: npt.NDArray[np.int64]
    ) -> ExemplarPhotos:
        """Return the photos in these rows of the manifest (E,), which are sorted by place."""
        wanted, place = np.unique(rows, return_inverse=True)
        parts, start = [], 0
        for batch in manifest.batches(["key", "utm_east", "utm_north"]):
            inside = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + len(batch))]
            parts.append(batch.take(pa.array(inside - start)))
            start += len(batch)
        table = pa.Table.from_batches(parts).take(pa.array(place)).combine_chunks()
        return cls(place_id, *_columns(table), manifest.root)

    def of_place(self, place_id: int) -> slice:
        """Return which photos belong to a place."""
        first, end = np.searchsorted(self.place_id, [place_id, place_id + 1])
        return slice(int(first), int(end))

    def path_of(self, key: str) -> Path | None:
        """Return the file of a photo, which may have been moved since; None if no such file may be read."""
        path = Path(os.path.normpath(self.root / key))
        return None if self.shared and not path.is_relative_to(self.root) else path

    def save(self, folder: Path, place: Path) -> str:
        """Write the photos to `folder`, which will be moved to `place`; return the file's SHA-256."""
        columns = {"place_id": self.place_id, "key": self.keys}
        columns |= {"utm_east": self.positions[:, 0].copy(), "utm_north": self.positions[:, 1].copy()}
        write_table(folder / NAME, pa.table(columns), {"root": root_text(self.root, place / NAME)})
        return sha256_of(folder / NAME)

    @classmethod
    def load(cls, folder: Path, digest: str | None) -> ExemplarPhotos | None:
        """Return the photos in a localiser's folder; None if it names none or their file was deleted.

        Raises
        ------
        InputError
            If the file has another SHA-256 than `digest`.
        """
        path = folder / NAME
        if digest is None or not path.exists():
            return None
        if sha256_of(path) != digest:
            raise InputError(
                f"{path} is damaged or was edited: delete it (answers then show no photos), put it back from "
                f"a copy, or run `{_MADE_BY}` again"
            )
        with open_parquet(path, made_by=_MADE_BY) as file:
            root, table = note_of(file, path, made_by=_MADE_BY)["root"], file.read().combine_chunks()
        shared = (folder / SHARED).exists()
        if shared:  # the root could be any folder of this machine, and `pipeline serve` shows its pictures
            root = _PHOTOS_OF_SHARED
        here = Path(os.path.normpath(folder / root))
        if not here.exists():
            here = Path(os.path.normpath(path_at_home(folder) / root))
        return cls(np.asarray(table["place_id"], np.int64), *_columns(table), here, shared)


def _columns(table: pa.Table) -> tuple[pa.Array, npt.NDArray[np.float64]]:
    positions = [np.asarray(table[name], np.float64) for name in ("utm_east", "utm_north")]
    keys: Any = table["key"].combine_chunks()
    return keys, np.stack(positions, axis=1)
