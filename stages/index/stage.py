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
from stages.index.file_changes import FileRecord, FileStatus
from stages.index.manifest import DuplicateKeyError, Manifest, root_text, write_manifest
from stages.index.result import IndexResult
from stages.index.skipped import SkipReason, Tally, skipped_path
from stages.index.sources.registry import absent_images, read_source
from stages.index.utm_zone import Zone, check_range, convert_to_zone, settle_letter_s
from stages.index.zone_count import ZoneCount


@dataclass(frozen=True)
class IndexInputs:
    """What the index stage works on.

    Attributes
    ----------
    config
        The `index` section of params.yaml.
    source
        A folder of images with SF-XL names or EXIF positions; a .csv with path and lat, lon or
        utm_east, utm_north[, zone]; a .txt list of SF-XL paths; or a .parquet manifest, such as a pack's.
    output
        The manifest to write.
    split
        "database" or "queries".
    zone
        UTM zone of the split that is indexed already, for instance "10S", to which all positions are
        converted; "" if it states none; None: the zone of most images.
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
    tally, files, zone = _scan(inputs, progress)
    changes = files.replace(inputs.output)
    tally.write_list(skipped_path(inputs.output))
    return IndexResult(
        split=inputs.split,
        rows=tally.rows,
        skipped={reason.words: count for reason, count in tally.counts.items()},
        examples={reason.words: tuple(keys) for reason, keys in tally.examples.items()},
        zone=zone,
        low=tally.low,
        high=tally.high,
        seconds=time.perf_counter() - start,
        endings=dict(tally.endings),
        unknown_headings=tally.unknown_headings,
        absent=absent_images(inputs.source, Manifest.open(inputs.output)),
        changes=changes,
    )


def _scan(inputs: IndexInputs, progress: Progress | None) -> tuple[Tally, FileRecord, str]:
    """Write the manifest in as many passes as needed; return tally, record of files and name of the zone.

    The zone of most images and repeated keys are known only at the end of a pass. Where the first
    images lie in another zone, or keys are repeated, another pass follows.
    """
    zone = Zone.of(inputs.zone) if inputs.zone else None
    repeated: DuplicateKeyError | None = None
    while True:
        scan = _Scan(inputs, progress, zone, None if repeated is None else repeated.rows)
        try:
            name = scan.write()
            break
        except _OtherZoneError as other:
            zone = other.zone
        except DuplicateKeyError as error:
            if inputs.config.on_error == "stop":
                raise
            zone, repeated = scan.zone, error
    if repeated is not None:
        scan.tally.add(SkipReason.DUPLICATE, len(repeated.rows), repeated.keys)
    return scan.tally, scan.files, name


class _OtherZoneError(Exception):
    """Most images lie in this zone, but the scan converted positions to another one."""

    def __init__(self, zone: Zone) -> None:
        super().__init__(zone.name)
        self.zone = zone


class _Scan:
    """One pass over the source, without the usable rows numbered in `leave_out`.

    Without a zone, positions are converted to the zone of most images of the first batch.
    """

    def __init__(
        self,
        inputs: IndexInputs,
        progress: Progress | None,
        zone: Zone | None,
        leave_out: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self._inputs = inputs
        self._progress = progress
        self._leave_out = leave_out
        self._usable_rows = 0
        self._zone_is_given = zone is not None or inputs.zone is not None
        self.zone = zone
        self._first_in_degrees = False
        self._zones = ZoneCount()
        self.tally = Tally()
        self.files = FileRecord()

    def write(self) -> str:
        """Write the manifest and return its zone."""
        source = self._inputs.source
        batches = (rows for rows in _read_ahead(self._record_batches()) if rows.num_rows)
        # Read one batch before writing starts: the zone is that of most of its images.
        first = next(batches, None)
        if first is None:
            raise InputError(
                f"{source} holds no image with a usable position; skipped: {self.tally.words()}; "
                "expected SF-XL names, photos with GPS, or a .csv with path, lat, lon"
            )
        zone = self.zone.name if self.zone else ""
        root, told_by = self._origin(source)
        output, rows = self._inputs.output, chain([first], batches)
        self.files.root = root_text(root, output)
        write_manifest(output, rows, root=root, zone=zone, source=told_by, skipped=self._skipped)
        return zone

    def _skipped(self) -> int:
        """Return how many entries are left out, here or when the images of a pack were first indexed."""
        source, count = self._inputs.source, sum(self.tally.counts[reason] for reason in self.tally.unusable)
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
            settle_letter_s(batch)
            self._zones.add(batch)
            if self.tally.rows == 0:
                self._first_in_degrees = bool(batch.latlon[batch.usable][:1].any())
                if not self._zone_is_given:
                    self.zone = self._zones.most()
            self._zones.add_outside(batch, convert_to_zone(batch, self.zone))
            self.tally.count_skipped(batch.keys, batch.skip_reasons)
            self._stop_at_skipped(self.tally.unusable - {SkipReason.TOO_FAR})

            self.tally.unknown_headings += batch.unknown_headings
            if self._inputs.config.on_error == "stop" and self.tally.unusable:
                raise InputError(
                    f"{source} has unusable entries: {self.tally.words()}; "
                    "fix them or set index.on_error to skip"
                )
            yield self._usable(batch)
            if self._progress:
                self._progress(min(done, total) if total else done, total or done)
        self._check_zone()
        self._stop_at_skipped(self.tally.unusable)

    def _stop_at_skipped(self, reasons: set[SkipReason]) -> None:
        """Stop if entries were skipped for one of these reasons and `index.on_error` says so."""
        if self._inputs.config.on_error == "stop" and reasons:
            raise InputError(
                f"{self._inputs.source} has unusable entries: {self.tally.words()}; "
                "fix them or set index.on_error to skip"
            )

    def _check_zone(self) -> None:
        """Check at the end of the pass that its zone is that of most images, and that positions fit it."""
        most = self._zones.most()
        if most and not self._zone_is_given and not (self.zone and self.zone.same_grid(most)):
            raise _OtherZoneError(most)
        inputs = self._inputs
        self._zones.require_agreement(inputs.source, inputs.split, self.zone, inputs.zone)

    def _usable(self, batch: EntryBatch) -> pa.RecordBatch:
        """Return and count the rows to index."""
        keep = batch.usable
        numbers = self._usable_rows + np.cumsum(keep) - 1
        self._usable_rows += int(keep.sum())
        if self._leave_out is not None:
            repeated = keep & np.isin(numbers, self._leave_out)
            self.tally.list_skipped(batch.keys.filter(pa.array(repeated)), SkipReason.DUPLICATE)
            keep &= ~repeated
        self.tally.count_indexed(batch.positions[keep])
        if batch.files is not None:
            status = FileStatus(*(column[keep] for column in batch.files))
            self.files.add(batch.keys.filter(pa.array(keep)), status)
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
