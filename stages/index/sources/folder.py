"""A folder of images -> their keys in sorted order, with positions from names or EXIF data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.images.formats import HEIC_SUFFIXES
from stages.index.batch import EntryBatch, SkipReason
from stages.index.exif import read_exif
from stages.index.sources.sfxl_names import parse_names

BATCH_ROWS = 1 << 18
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", *HEIC_SUFFIXES)


def found_in_folder(root: Path) -> Iterator[tuple[EntryBatch, int]]:
    """Yield the images below a folder sorted by key, and how many have been seen so far.

    The position comes from the name where it carries one, otherwise from the
    EXIF data. Other files and hidden ones count for nothing.
    """
    keys: list[str] = []
    done = 0
    for key in keys_below(root):
        keys.append(key)
        if len(keys) == BATCH_ROWS:
            done += len(keys)
            yield _find(root, keys), done
            keys = []
    if keys:
        yield _find(root, keys), done + len(keys)


def keys_below(root: Path) -> Iterator[str]:
    """Yield the path of every image below `root`, relative to it and in sorted order."""
    # A stack of sorted listings: the next key is always the least one left.
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
    """Return the images and, with a slash at the end, the folders of one folder, sorted.

    The slash makes the order of folders that of the keys below them.
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
    """Return whether a linked folder holds the link itself, so that following it would never end."""
    return link.parent.resolve().is_relative_to(link.resolve())


def _find(root: Path, keys: list[str]) -> EntryBatch:
    shown = [os.fsencode(key).decode("utf-8", "backslashreplace") for key in keys]
    found = parse_names(pa.array(shown, pa.string()))
    stamps: dict[int, str] = {}
    for row in np.flatnonzero(found.faults).tolist():
        if shown[row] != keys[row]:
            found.faults[row] = SkipReason.NOT_TEXT
        elif found.faults[row] == SkipReason.NO_POSITION:
            photo = read_exif(root / keys[row])
            if isinstance(photo, SkipReason):
                found.faults[row] = photo
                continue
            found.faults[row] = SkipReason.NONE
            found.latlon[row] = True
            found.positions[row] = photo.latitude, photo.longitude
            found.heading[row] = photo.heading
            stamps[row] = photo.timestamp
    if stamps:
        texts = found.timestamp.to_pylist()
        found.timestamp = pa.array([stamps.get(row, text) for row, text in enumerate(texts)], pa.string())
    return found
