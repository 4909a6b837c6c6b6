"""The index stage: stream one source into one manifest."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.errors import InputError
from stages.files import Progress
from stages.index.batch import EntryBatch
from stages.index.config import IndexConfig
from stages.index.manifest import DuplicateKeyError, Manifest, write_manifest
from stages.index.result import IndexResult
from stages.index.skipped import SkipReason, Tally
from stages.index.sources.registry import read_source
from stages.index.utm_zone import Zone, check_range, convert_to_zone, zone_of_first


@dataclass(frozen=True)
class IndexInputs:
    """What the index stage works on.

    Attributes
    ----------
    config
        The `index` section of params.yaml.
    source
        A folder of images with SF-XL names or EXIF positions; a .csv with
        path and lat, lon or utm_east, utm_north[, zone]; a .txt list of SF-XL
        paths; or a .parquet manifest, such as a pack's.
    output
        The manifest to write.
    split
        "database" or "queries".
    zone
        UTM zone to convert all positions to, for instance "10S"; None: that of the first image.
    """

    config: IndexConfig
    source: Path
    output: Path
    split: str
    zone: str | None = None


def run(inputs: IndexInputs, *, progress: Progress | None = None) -> IndexResult:
    """Index the images of one source; progress counts images of a folder or bytes of a file.

    Raises
    ------
    InputError
        If the source is missing, is of no known kind or holds no usable image;
        or if an entry is unusable and `index.on_error` is "stop".
    """
    start = time.perf_counter()
    scan = _Scan(inputs, progress)
    try:
        zone = scan.write()
    except DuplicateKeyError as duplicates:
        if inputs.config.on_error == "stop":
            raise
        # Duplicates are known only at the end of a scan, so a second one leaves them out.
        scan = _Scan(inputs, progress, duplicates.rows)
        zone = scan.write()
        scan.tally.add(SkipReason.DUPLICATE, len(duplicates.rows), duplicates.keys)
    tally = scan.tally
    return IndexResult(
        split=inputs.split,
        rows=tally.rows,
        skipped={reason.words: count for reason, count in tally.counts.items()},
        examples={reason.words: tuple(keys) for reason, keys in tally.examples.items()},
        zone=zone,
        low=tally.low,
        high=tally.high,
        seconds=time.perf_counter() - start,
    )


class _Scan:
    """One pass over the source, without the usable rows numbered in `leave_out`."""

    def __init__(
        self, inputs: IndexInputs, progress: Progress | None, leave_out: npt.NDArray[np.int64] | None = None
    ) -> None:
        self._inputs = inputs
        self._progress = progress
        self._leave_out = leave_out
        self._usable_rows = 0
        self._zone = Zone.of(inputs.zone) if inputs.zone else None
        self._first_in_degrees = False
        self.tally = Tally()

    def write(self) -> str:
        """Write the manifest and return its zone."""
        source = self._inputs.source
        batches = (rows for rows in _read_ahead(self._record_batches()) if rows.num_rows)
        # Read one batch before writing starts: the zone is that of the first usable image.
        first = next(batches, None)
        if first is None:
            raise InputError(
                f"{source} holds no image with a usable position; skipped: {self.tally.words()}; "
                "expected SF-XL names, photos with GPS, or a .csv with path, lat, lon"
            )
        zone = self._zone.name if self._zone else ""
        root, told_by = self._origin(source)
        output, rows = self._inputs.output, chain([first], batches)
        write_manifest(output, rows, root=root, zone=zone, source=told_by, skipped=self._skipped)
        return zone

    def _skipped(self) -> int:
        """Return how many entries are left out, here or when the images of a pack were first indexed."""
        source, count = self._inputs.source, sum(self.tally.counts.values())
        if self._leave_out is not None:
            count += len(self._leave_out)
        return count + ((Manifest.open(source).skipped or 0) if source.suffix.lower() == ".parquet" else 0)

    def _origin(self, source: Path) -> tuple[Path, str]:
        """Return the folder that keys are relative to, and what told the positions."""
        suffix = source.suffix.lower()
        if suffix == ".parquet":
            manifest = Manifest.open(source)
            return manifest.root, manifest.source
        root = source if source.is_dir() else source.parent
        if suffix == ".csv":
            return root, "csv"
        return root, "exif" if self._first_in_degrees else "names"

    def _record_batches(self) -> Iterator[pa.RecordBatch]:
        source = self._inputs.source
        batches = read_source(source)
        total = 0 if source.is_dir() else source.stat().st_size
        for batch, done in batches:
            check_range(batch)
            if self.tally.rows == 0:
                self._first_in_degrees = bool(batch.latlon[batch.usable][:1].any())
                self._zone = self._zone or zone_of_first(batch)
            convert_to_zone(batch, self._zone)
            self.tally.count_skipped(batch.keys, batch.skip_reasons)
            if self._inputs.config.on_error == "stop" and self.tally.counts:
                raise InputError(
                    f"{source} has unusable entries: {self.tally.words()}; "
                    "fix them or set index.on_error to skip"
                )
            yield self._usable(batch)
            if self._progress:
                self._progress(min(done, total) if total else done, total or done)

    def _usable(self, batch: EntryBatch) -> pa.RecordBatch:
        """Return and count the rows to index."""
        keep = batch.usable
        numbers = self._usable_rows + np.cumsum(keep) - 1
        self._usable_rows += int(keep.sum())
        if self._leave_out is not None:
            keep &= ~np.isin(numbers, self._leave_out)
        self.tally.count_indexed(batch.positions[keep])
        rows = pa.record_batch(
            {
                "key": batch.keys,
                "utm_east": np.ascontiguousarray(batch.positions[:, 0]),
                "utm_north": np.ascontiguousarray(batch.positions[:, 1]),
                "heading": batch.heading,
                "timestamp": batch.timestamp,
                **batch.extra_columns,
            }
        )
        return rows if keep.all() else rows.filter(pa.array(keep))


def _read_ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches while a thread prepares the next one, so that reading and writing overlap."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, batches, None)
        while (batch := future.result()) is not None:
            future = pool.submit(next, batches, None)
            yield batch
