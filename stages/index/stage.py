"""The index stage: one source -> one manifest, as a stream."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.errors import InputError
from stages.files import Progress
from stages.index.batch import EntryBatch, SkipReason
from stages.index.config import IndexConfig
from stages.index.manifest import DuplicateKeyError, Manifest, write_manifest
from stages.index.result import IndexResult
from stages.index.skipped import Tally
from stages.index.sources.csv import found_in_table
from stages.index.sources.folder import found_in_folder
from stages.index.sources.manifest import found_in_manifest
from stages.index.sources.text_list import found_in_list
from stages.index.utm_zone import Zone, check_range, place, zone_of_first


def run(
    config: IndexConfig,
    *,
    source: Path,
    output: Path,
    split: str,
    progress: Progress | None = None,
    zone: str | None = None,
) -> IndexResult:
    """Index the images of one source and return what was found.

    Parameters
    ----------
    config
        The `index` section of params.yaml.
    source
        A folder of images, with SF-XL names or EXIF positions; a .csv with
        path and lat, lon or utm_east, utm_north[, zone]; a .txt list of SF-XL paths; or a
        .parquet manifest, such as a pack's.
    output
        The manifest to write.
    split
        "database" or "queries".
    progress
        Called with (done, total): entries of a folder, bytes of a file.
    zone
        UTM zone that all positions are put in, for instance "10S"; None: that of the first image.

    Raises
    ------
    InputError
        If the source is missing, is of no known kind or holds no usable image;
        or if an entry is faulty and `index.on_error` is "stop".
    """
    start = time.perf_counter()
    scan = _Scan(config, source, Zone.of(zone) if zone else None, progress)
    try:
        manifest_zone = scan.write(output)
    except DuplicateKeyError as duplicates:
        if config.on_error == "stop":
            raise
        scan = _Scan(config, source, Zone.of(zone) if zone else None, progress, drop=duplicates.rows)
        manifest_zone = scan.write(output)
        scan.tally.blame(SkipReason.DUPLICATE, len(duplicates.rows), duplicates.keys)
    tally = scan.tally
    return IndexResult(
        split=split,
        rows=tally.rows,
        skipped={fault.words: count for fault, count in tally.counts.items()},
        examples={fault.words: tuple(keys) for fault, keys in tally.examples.items()},
        zone=manifest_zone,
        low=tally.low,
        high=tally.high,
        seconds=time.perf_counter() - start,
    )


class _Scan:
    """One pass over a source."""

    def __init__(
        self,
        config: IndexConfig,
        source: Path,
        zone: Zone | None,
        progress: Progress | None,
        drop: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self._config = config
        self._source = source
        self._zone = zone
        self._progress = progress
        self._drop = drop if drop is not None else np.zeros(0, np.int64)
        self._passed = 0
        self._told_by = "names"
        self.tally = Tally()

    def write(self, output: Path) -> str:
        """Write the manifest and return its zone."""
        batches = (batch for batch in _ahead(self._usable()) if batch.num_rows)
        # The zone is that of the first usable image, so one batch has to be read before writing begins.
        first = next(batches, None)
        if first is None:
            raise InputError(
                f"{self._source} holds no image with a usable position; skipped: {self.tally.words()}; "
                "expected SF-XL names, photos with GPS, or a .csv with path, lat, lon"
            )
        root = self._source if self._source.is_dir() else self._source.parent
        name = self._zone.name if self._zone else ""
        source_kind = "csv" if self._source.suffix.lower() == ".csv" else self._told_by
        if self._source.suffix.lower() == ".parquet":
            indexed = Manifest.open(self._source)
            root, source_kind = indexed.root, indexed.source
        write_manifest(output, _chain(first, batches), root=root, zone=name, source=source_kind)
        return name

    def _usable(self) -> Iterator[pa.RecordBatch]:
        entries = _open(self._source)
        total = 0 if self._source.is_dir() else self._source.stat().st_size
        for found, done in entries:
            check_range(found)
            if self.tally.rows == 0:
                self._told_by = "exif" if found.latlon[found.faults == SkipReason.NONE][:1].any() else "names"
                self._zone = self._zone or zone_of_first(found)
            place(found, self._zone)
            self.tally.blame_faulty(found)
            if self._config.on_error == "stop" and self.tally.counts:
                faults = self.tally.words()
                raise InputError(
                    f"{self._source} has unusable entries: {faults}; mend them or set index.on_error to skip"
                )
            yield self._batch(found)
            if self._progress:
                self._progress(min(done, total) if total else done, total or done)

    def _batch(self, found: EntryBatch) -> pa.RecordBatch:
        good = found.faults == SkipReason.NONE
        numbers = self._passed + np.cumsum(good) - 1
        self._passed += int(good.sum())
        if len(self._drop):
            good &= ~np.isin(numbers, self._drop)
        columns = {
            "key": found.keys,
            "utm_east": np.ascontiguousarray(found.positions[:, 0]),
            "utm_north": np.ascontiguousarray(found.positions[:, 1]),
            "heading": found.heading,
            "timestamp": found.timestamp,
            **found.further,
        }
        self.tally.accept(found.positions[good])
        batch = pa.record_batch(columns)
        return batch if good.all() else batch.filter(pa.array(good))


def _open(source: Path) -> Iterator[tuple[EntryBatch, int]]:
    """Return the batches of a source, by its kind."""
    if source.is_dir():
        return found_in_folder(source)
    if not source.exists():
        raise InputError(
            f"{source} does not exist: expected a folder, a .csv or a .txt list; mend data in params.yaml"
        )
    suffix = source.suffix.lower()
    if suffix == ".csv":
        return found_in_table(source)
    if suffix == ".txt":
        return found_in_list(source)
    if suffix == ".parquet":
        return found_in_manifest(source)
    raise InputError(
        f"{source} is of no known kind: expected a folder of images, a .csv, a .txt list of paths "
        "or the manifest of a pack"
    )


def _ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches while a thread already prepares the next, so that reading and writing overlap."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, batches, None)
        while (batch := future.result()) is not None:
            future = pool.submit(next, batches, None)
            yield batch


def _chain(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest
