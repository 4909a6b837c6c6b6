"""Pack images from any source; without a manifest, the source is indexed first."""

from __future__ import annotations

from pathlib import Path

from pipeline.project.params import Params
from stages.files import Progress
from stages.index import stage as index
from stages.index.file_changes import record_path
from stages.index.packs.result import PackResult
from stages.index.packs.stage import PackInputs, run
from stages.index.skipped import skipped_path

SKIPPED = "skipped.csv"


def pack(params: Params, source: Path, output: Path, *, workers: int, progress: Progress) -> PackResult:
    """Pack a folder, a .csv, a .txt list or a .parquet manifest."""
    if source.suffix.lower() == ".parquet":
        return run(PackInputs(params.pack, source, output, workers), progress=progress)
    indexed = output / ".index.parquet"
    index.run(index.IndexInputs(params.index, (source,), indexed, "database"))
    skipped_path(indexed).replace(output / SKIPPED)
    try:
        return run(PackInputs(params.pack, indexed, output, workers), progress=progress)
    finally:
        indexed.unlink(missing_ok=True)
        record_path(indexed).unlink(missing_ok=True)
