"""What is done, missing, bad, how large and how fast, over all artifacts of a project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cache.reader import FeatureReader
from cache.storage.paths import AnyPath, StoragePath, total_size
from cache.storage.shard_claims import claims_on
from cache.store import store_exists
from cache.timings import total_timings
from pipeline.console import size
from pipeline.project.paths import SPLITS, Paths
from stages.index.manifest import Manifest

COLUMNS = ("artifact", "rows", "done", "bad", "size", "images/s")  # fits 80 columns at 100 million rows
Row = tuple[object, ...]


def artifacts(paths: Paths) -> Iterator[Row]:
    """Yield a table row per artifact, in flow order; see `COLUMNS`."""
    for split in ("database", "queries"):
        yield _manifest(f"index {split}", paths.index(split))
    yield _plain("partition", paths.partition)
    for split in SPLITS:
        yield _store(f"features {split}", paths.features(split))
    yield _plain("localiser", paths.localiser)
    yield _plain("metrics", paths.metrics)


def bad_images(paths: Paths) -> Iterator[Row]:
    """Yield split, row, key and reason of every image that could not be used."""
    for split in SPLITS:
        store = paths.features(split)
        if store_exists(store):
            for bad in FeatureReader.open(store).store.ledger.bad_rows():
                yield split, bad.row, bad.key, bad.reason


def time_spent(paths: Paths) -> Iterator[tuple[str, str]]:
    """Yield, per split that was extracted, a line of the seconds of work and one of what waited for what.

    Reading is summed over threads, so it may exceed the time that passed. The waits are shares of
    the time that passed: of that, the backbone stood still for want of images, or of a disk that
    takes its features.
    """
    for split in SPLITS:
        spent = total_timings(paths.features(split))
        passed = _passed(spent)
        if not passed:
            continue
        text = ", ".join(f"{part} {_duration(spent[f'{part}_s'])}" for part in ("read", "compute", "write"))
        waits = {
            "images": spent["read_wait_s"] / passed,
            "the disk": spent["write_wait_s"] / passed,
        }
        yield split, text
        yield "", "waited for " + ", for ".join(f"{what} {share:.0%}" for what, share in waits.items())


def running_extractions(paths: Paths) -> Iterator[tuple[str, str]]:
    """Yield, per split that is being extracted just now, who does it."""
    for split in SPLITS:
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
    spent = total_timings(path)
    done = 1 - reader.missing_rows / max(reader.rows, 1)
    return (
        name,
        reader.rows,
        f"{int(100 * done)} %",
        len(reader.store.ledger.bad_rows()),
        _size(path),
        spent["images"] / _passed(spent) if spent["images"] else "",
    )


def _plain(name: str, path: Path) -> Row:
    return (name, "", "100 %", "", _size(path), "") if path.exists() else _absent(name)


def _absent(name: str) -> Row:
    return name, "", "none", "", "", ""


def _passed(spent: dict[str, float]) -> float:
    """Return the seconds of the backbone's own thread, over all workers."""
    return spent["compute_s"] + spent["read_wait_s"] + spent["write_wait_s"]


def _duration(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"


def _size(path: AnyPath) -> str:
    return size(total_size(path))
