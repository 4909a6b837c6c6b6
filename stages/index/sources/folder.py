"""A folder of images, sorted by key, with positions from the names or the EXIF data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.images.formats import SUFFIXES
from stages.index.batch import EntryBatch
from stages.index.exif import read_exif
from stages.index.skipped import SkipReason
from stages.index.sources.sfxl_names import parse_names

BATCH_ROWS = 1 << 18


def read_folder(root: Path) -> Iterator[tuple[EntryBatch, int]]:
    """Yield the images below a folder sorted by key, and the number of images so far.

    The position comes from the name if it is an SF-XL name, otherwise from the EXIF
    data. Hidden files and files that are not images are ignored.
    """
    keys: list[str] = []
    done = 0
    for key in keys_below(root):
        keys.append(key)
        if len(keys) == BATCH_ROWS:
            done += len(keys)
            yield _read_images(root, keys), done
            keys = []
    if keys:
        yield _read_images(root, keys), done + len(keys)


def keys_below(root: Path) -> Iterator[str]:
    """Yield the path of every image below `root`, relative to it and in sorted order."""
    # A stack of sorted listings, so that memory holds one folder per level and not the whole tree.
    stack = [iter(_listing(root, ""))]
    while stack:
        key = next(stack[-1], None)
        if key is None:
            stack.pop()
        elif key.endswith("/"):
            stack.append(iter(_listing(root, key)))
        else:
            yield key


def _listing(root: Path, prefix: str) -> list[str]:
    """Return the sorted images and subfolders of one folder.

    A subfolder ends with a slash, which sorts it as the keys below it are sorted.
    """
    keys = []
    with os.scandir(root / prefix) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if not (entry.is_symlink() and _leads_up(Path(entry.path))):
                    keys.append(f"{prefix}{entry.name}/")
            elif entry.name.lower().endswith(SUFFIXES):
                keys.append(prefix + entry.name)
    return sorted(keys)


def _leads_up(link: Path) -> bool:
    """Return whether a linked folder contains the link, so that following it would never end."""
    return link.parent.resolve().is_relative_to(link.resolve())


def _read_images(root: Path, keys: list[str]) -> EntryBatch:
    printable = [os.fsencode(key).decode("utf-8", "backslashreplace") for key in keys]
    batch = parse_names(pa.array(printable, pa.string()))
    timestamps: dict[int, str] = {}
    for row in np.flatnonzero(~batch.usable).tolist():
        if printable[row] != keys[row]:
            batch.skip_reasons[row] = SkipReason.NOT_TEXT
        else:
            photo = read_exif(root / keys[row])
            if isinstance(photo, SkipReason):
                if batch.skip_reasons[row] == SkipReason.NO_POSITION:
                    batch.skip_reasons[row] = photo
                continue
            batch.zone_numbers[row] = batch.bands[row] = 0
            batch.skip_reasons[row] = SkipReason.NONE
            batch.latlon[row] = True
            batch.positions[row] = photo.latitude, photo.longitude
            batch.heading[row] = photo.heading
            timestamps[row] = photo.timestamp
    if timestamps:
        texts = [timestamps.get(row, text) for row, text in enumerate(batch.timestamp.to_pylist())]
        batch.timestamp = pa.array(texts, pa.string())
    return batch
