"""The index stage: stream its sources into one manifest."""

from __future__ import annotations

import time

from stages.files import Progress
from stages.index.file_changes import FileRecord
from stages.index.inputs import IndexInputs
from stages.index.manifest import Manifest
from stages.index.manifest_writer import DuplicateKeyError
from stages.index.result import IndexResult
from stages.index.scan import OtherZoneError, Scan
from stages.index.skipped import SkipReason, Tally, skipped_path
from stages.index.sources.sets import ImageSets, rows_by_set
from stages.index.utm_zone import Zone

__all__ = ["IndexInputs", "IndexResult", "run"]


def run(inputs: IndexInputs, *, progress: Progress | None = None) -> IndexResult:
    """Index the images of all sources; progress counts images of a folder or bytes of a file.

    Raises
    ------
    InputError
        If a source is missing or of no known kind, or they hold no usable image;
        or if an entry is unusable and `index.on_error` is "stop".
    """
    start = time.perf_counter()
    tally, files, zone = _scan(inputs, progress)
    changes = files.replace(inputs.output)
    tally.write_list(skipped_path(inputs.output))
    manifest = Manifest.open(inputs.output)
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
        absent=ImageSets(inputs.sources).absent(manifest),
        changes=changes,
        sets=rows_by_set(manifest),
    )


def _scan(inputs: IndexInputs, progress: Progress | None) -> tuple[Tally, FileRecord, str]:
    """Write the manifest in as many passes as needed; return tally, record of files and name of the zone.

    The zone of most images and repeated keys are known only at the end of a pass. Where the first
    images lie in another zone, or keys are repeated, another pass follows.
    """
    zone = Zone.of(inputs.zone) if inputs.zone else None
    repeated: DuplicateKeyError | None = None
    while True:
        scan = Scan(inputs, progress, zone, None if repeated is None else repeated.rows)
        try:
            name = scan.write()
            break
        except OtherZoneError as other:
            zone = other.zone
        except DuplicateKeyError as error:
            if inputs.config.on_error == "stop":
                raise
            zone, repeated = scan.zone, error
    if repeated is not None:
        scan.tally.add(SkipReason.DUPLICATE, len(repeated.rows), repeated.keys)
    return scan.tally, scan.files, name
