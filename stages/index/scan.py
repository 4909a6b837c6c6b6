"""One pass over the sources of a manifest: read, convert, count and write."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.errors import InputError
from stages.files import Progress
from stages.index.batch import EntryBatch
from stages.index.file_changes import FileRecord, FileStatus
from stages.index.inputs import IndexInputs
from stages.index.manifest import Manifest
from stages.index.manifest_writer import root_text, write_manifest
from stages.index.skipped import SkipReason, Tally
from stages.index.sources.sets import ImageSets
from stages.index.utm_zone import Zone, check_range, convert_to_zone, settle_letter_s
from stages.index.zone_count import ZoneCount


class OtherZoneError(Exception):
    """Most images lie in this zone, but the scan converted positions to another one."""

    def __init__(self, zone: Zone) -> None:
        super().__init__(zone.name)
        self.zone = zone


class Scan:
    """One pass over the sources, without the usable rows numbered in `leave_out`.

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
        self._sets = ImageSets(inputs.sources)
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
        batches = (rows for rows in _read_ahead(self._record_batches()) if rows.num_rows)
        # Read one batch before writing starts: the zone is that of most of its images.
        first = next(batches, None)
        if first is None:
            raise InputError(
                f"{self._sets} holds no image with a usable position; skipped: {self.tally.words()}; "
                "expected SF-XL names, photos with GPS, or a .csv with path, lat, lon"
            )
        zone = self.zone.name if self.zone else ""
        root, told_by = self._sets.root(), self._origin()
        output, rows = self._inputs.output, chain([first], batches)
        self.files.root = root_text(root, output)
        write_manifest(output, rows, root=root, zone=zone, source=told_by, skipped=self._skipped)
        return zone

    def _skipped(self) -> int:
        """Return how many entries are left out, here or when the images of a pack were first indexed."""
        count = sum(self.tally.counts[reason] for reason in self.tally.unusable)
        if self._leave_out is not None:
            count += len(self._leave_out)
        return count + self._sets.skipped_before()

    def _origin(self) -> str:
        """Return what told the positions of the first images."""
        first = self._inputs.sources[0]
        suffix = first.suffix.lower()
        if suffix == ".parquet":
            return Manifest.open(first).source
        if suffix == ".csv":
            return "csv"
        return "exif" if self._first_in_degrees else "names"

    def _record_batches(self) -> Iterator[pa.RecordBatch]:
        total: int | None = None
        for batch, done in self._sets.read():
            # After the first batch, because that of a missing source is an error with better words.
            total = self._sets.total_bytes() if total is None else total
            check_range(batch)
            settle_letter_s(batch)
            self._zones.add(batch)
            if self.tally.rows == 0:
                self._first_in_degrees = bool(batch.latlon[batch.usable][:1].any())
                if not self._zone_is_given:
                    self.zone = self._zones.most()
            self._zones.add_outside(batch, convert_to_zone(batch, self.zone))
            self.tally.count_skipped(batch.keys, batch.skip_reasons)
            # Which entries are too far is known at the end: another zone may be that of most.
            self._stop_at_skipped(self.tally.unusable - {SkipReason.TOO_FAR})
            self.tally.unknown_headings += batch.unknown_headings
            yield self._usable(batch)
            if self._progress:
                self._progress(min(done, total) if total else done, total or done)
        self._check_zone()
        self._stop_at_skipped(self.tally.unusable)

    def _stop_at_skipped(self, reasons: set[SkipReason]) -> None:
        """Stop if entries were skipped for one of these reasons and `index.on_error` says so."""
        if self._inputs.config.on_error == "stop" and reasons:
            raise InputError(
                f"{self._sets} has unusable entries: {self.tally.words()}; "
                "fix them or set index.on_error to skip"
            )

    def _check_zone(self) -> None:
        """Check at the end of the pass that its zone is that of most images, and that positions fit it."""
        most = self._zones.most()
        if most and not self._zone_is_given and not (self.zone and self.zone.same_grid(most)):
            raise OtherZoneError(most)
        inputs = self._inputs
        self._zones.require_agreement(str(self._sets), inputs.split, self.zone, inputs.zone)

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
