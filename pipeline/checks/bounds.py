"""What bounds the result of a project's partition, as findings."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.checks.finding import Finding
from pipeline.project.paths import Paths
from stages.index.manifest import Manifest
from stages.partition.advice import advise
from stages.partition.classes import ClassTable, load_labels


def bounds(paths: Paths, radius_m: float) -> Iterator[Finding]:
    """Yield what bounds the result, with the line to change; nothing before `pipeline partition` ran."""
    table, labels = paths.partition / "classes.parquet", paths.partition / "labels.npy"
    if not (table.exists() and labels.exists() and paths.index("database").exists()):
        return
    database, queries = Manifest.open(paths.index("database")), None
    if paths.index("queries").exists():
        queries = Manifest.open(paths.index("queries")).positions()
    label = load_labels(labels)
    if len(label) != database.rows:
        return  # another check says so
    for each in advise(ClassTable.load(table), label, database, queries, radius_m):
        yield Finding("result", "note", each.text, each.remedy)
