"""A folder of images, sorted by key, with positions from the names or the EXIF data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.images.formats import SUFFIXES
from stages.index.batch import EntryBatch
from stages.index.exif import read_exif
from stages.index.skipped import SkipReason
from stages.index.sources.sfxl_names import parse_names

BATCH_ROWS = 1 << 18


def read_folder(root: Path) -> Iterator[tuple[EntryBatch, int]]:
    """Yield the images below a folder sorted by key, and the number of files so far.

    The position comes from the name if it is an SF-XL name, otherwise from the EXIF data. Files that are
    not read as images are entries with a reason.
    """
    entries = entries_below(root)
    done = 0
    while batch := list(islice(entries, BATCH_ROWS)):
        done += len(batch)
        keys, reasons = zip(*batch, strict=True)
        yield _read_images(root, list(keys), np.array(reasons, np.uint8)), done


def keys_below(root: Path) -> Iterator[str]:
    """Yield the path of every image below `root`, relative to it and in sorted order."""
    return (key for key, reason in entries_below(root) if reason == SkipReason.NONE)


def entries_below(root: Path) -> Iterator[tuple[str, SkipReason]]:
    """Yield the path of every file below `root` in sorted order, and why it is not read as an image."""
    # A stack of sorted listings, so that memory holds one folder per level and not the whole tree.
    stack = [(_identity(root), iter(_listing(root, "")))]
    while stack:
        key, reason = next(stack[-1][1], ("", SkipReason.NONE))
        if not key:
            stack.pop()
        elif not key.endswith("/"):
            yield key, reason
        else:
            try:
                folder = _identity(root / key)
                if folder in (above for above, _ in stack):
                    yield key, SkipReason.NOT_A_FILE  # following a link to a folder above would never end
                else:
                    stack.append((folder, iter(_listing(root, key))))
            except OSError:
                yield key, SkipReason.CLOSED_FOLDER


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _listing(root: Path, prefix: str) -> list[tuple[str, SkipReason]]:
    """Return the sorted files and subfolders of one folder.

    A subfolder ends with a slash, which sorts it as the keys below it are sorted.
    """
    with os.scandir(root / prefix) as entries:
        return sorted(listed for entry in entries if (listed := _listed(entry, prefix)) is not None)


def _listed(entry: os.DirEntry[str], prefix: str) -> tuple[str, SkipReason] | None:
    """Return key and reason of one entry; None for hidden files that are no images."""
    is_image = entry.name.lower().endswith(SUFFIXES)
    try:
        is_folder, is_file = entry.is_dir(), entry.is_file()
    except OSError:  # a circular link
        is_folder = is_file = False
    if entry.name.startswith("."):
        return (prefix + entry.name, SkipReason.HIDDEN) if is_image or is_folder else None
    if is_folder:
        return f"{prefix}{entry.name}/", SkipReason.NONE
    if not is_file:
        return prefix + entry.name, SkipReason.NOT_A_FILE
    return prefix + entry.name, SkipReason.NONE if is_image else SkipReason.OTHER_KIND


def _read_images(root: Path, keys: list[str], reasons: npt.NDArray[np.uint8]) -> EntryBatch:
    printable = [os.fsencode(key).decode("utf-8", "backslashreplace") for key in keys]
    batch = parse_names(pa.array(printable, pa.string()))
    batch.skip_reasons[reasons > 0] = reasons[reasons > 0]
    timestamps: dict[int, str] = {}
    for row in np.flatnonzero(~batch.usable & (reasons == SkipReason.NONE)).tolist():
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
