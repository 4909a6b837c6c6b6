"""What is done, missing, bad, how large and how fast, over all artifacts of a project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cache.reader import FeatureReader
from cache.timings import total_timings
from pipeline.console import size
from pipeline.paths import SPLITS, Paths
from stages.manifest import Manifest

COLUMNS = ("artifact", "rows", "done", "missing", "bad", "size", "images/s", "read s", "compute s", "write s")
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
        if store.exists():
            for bad in FeatureReader.open(store).store.ledger.bad_rows():
                yield split, bad.row, bad.key, bad.reason


def _manifest(name: str, path: Path) -> Row:
    if not path.exists():
        return _absent(name)
    rows = Manifest.open(path).rows
    return name, rows, rows, 0, "", _size(path), "", "", "", ""


def _store(name: str, path: Path) -> Row:
    if not path.exists():
        return _absent(name)
    reader = FeatureReader.open(path)
    timing = total_timings(path)
    seconds = {part: timing[f"{part}_s"] for part in ("read", "compute", "write")}
    slowest = max(seconds["compute"], 1e-9)
    return (
        name,
        reader.rows,
        reader.rows - reader.missing_rows,
        reader.missing_rows,
        len(reader.store.ledger.bad_rows()),
        _size(path),
        timing["images"] / slowest if timing["images"] else "",
        *seconds.values(),
    )


def _plain(name: str, path: Path) -> Row:
    return (name, *[""] * 4, _size(path), *[""] * 4) if path.exists() else _absent(name)


def _absent(name: str) -> Row:
    return (name, "none yet", *[""] * (len(COLUMNS) - 2))


def _size(path: Path) -> str:
    files = [path] if path.is_file() else (file for file in path.rglob("*") if file.is_file())
    return size(sum(file.stat().st_size for file in files))
