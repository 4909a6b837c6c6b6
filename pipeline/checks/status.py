"""The state, size and speed of every artifact of a project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cache.reader import FeatureReader
from cache.storage.paths import AnyPath, StoragePath, total_size
from cache.storage.shard_claims import claims_on
from cache.store import store_exists
from cache.timings import total_timings
from pipeline.checks.splits import stored_splits
from pipeline.console import size
from pipeline.project.paths import Paths
from stages.index.manifest import Manifest
from stages.index.skipped import read_skipped, skipped_path

COLUMNS = ("artifact", "rows", "done", "bad", "size", "images/s")  # fits 80 columns at 100 million rows
Row = tuple[object, ...]


def artifacts(paths: Paths) -> Iterator[Row]:
    """Yield a table row per artifact, in the order of the stages; see `COLUMNS`."""
    for split in ("database", "queries"):
        yield _manifest(f"index {split}", paths.index(split))
    yield _artifact("partition", paths.partition)
    for split in stored_splits(paths):
        yield _store(f"features {split}", paths.features(split))
    yield _artifact("localiser", paths.localiser)
    yield _artifact("metrics", paths.metrics)


def skipped_entries(paths: Paths) -> Iterator[Row]:
    """Yield split, key and reason of every entry that was not indexed."""
    for split in ("database", "queries"):
        for key, reason in read_skipped(skipped_path(paths.index(split))):
            yield split, key, reason


def bad_images(paths: Paths) -> Iterator[Row]:
    """Yield split, row, key and reason of every unreadable image."""
    for split in stored_splits(paths):
        store = paths.features(split)
        if store_exists(store):
            for bad in FeatureReader.open(store).store.ledger.bad_rows():
                yield split, bad.row, bad.key, bad.reason


def time_spent(paths: Paths) -> Iterator[tuple[str, str]]:
    """Yield, per extracted split, the seconds of work and the shares of time that the backbone waited.

    The seconds of reading are summed over threads, so they may exceed the time that passed.
    """
    for split in stored_splits(paths):
        timings = total_timings(paths.features(split))
        passed = _passed(timings)
        if not passed:
            continue
        text = ", ".join(f"{part} {_duration(timings[f'{part}_s'])}" for part in ("read", "compute", "write"))
        images, disk = timings["read_wait_s"] / passed, timings["write_wait_s"] / passed
        yield split, text
        yield "", f"waited for images {images:.0%}, for the disk {disk:.0%}"


def running_extractions(paths: Paths) -> Iterator[tuple[str, str]]:
    """Yield each split that is being extracted and the process that does it."""
    for split in stored_splits(paths):
        for holder in dict.fromkeys(str(claim) for claim in claims_on(paths.features(split))):
            yield split, holder


def _manifest(name: str, path: Path) -> Row:
    if not path.exists():
        return _absent(name)
    return name, Manifest.open(path).rows, "100 %", "", _size(path), ""


def _store(name: str, path: StoragePath) -> Row:
    if not store_exists(path):
        return _absent(name)
    reader = FeatureReader.open(path)
    timings = total_timings(path)
    entries = list(reader.store.ledger.entries())  # a file each: read once
    done_rows = sum(entry.rows.stop - entry.rows.start for entry in entries)
    done = done_rows / reader.rows if reader.rows else 1.0
    return (
        name,
        reader.rows,
        f"{int(100 * done)} %",
        sum(len(entry.bad) for entry in entries),
        _size(path),
        timings["images"] / _passed(timings) if timings["images"] else "",
    )


def _artifact(name: str, path: Path) -> Row:
    return (name, "", "100 %", "", _size(path), "") if path.exists() else _absent(name)


def _absent(name: str) -> Row:
    return name, "", "none", "", "", ""


def _passed(timings: dict[str, float]) -> float:
    """Return the seconds of the backbone's thread, summed over workers."""
    return timings["compute_s"] + timings["read_wait_s"] + timings["write_wait_s"]


def _duration(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"


def _size(path: AnyPath) -> str:
    return size(total_size(path))
