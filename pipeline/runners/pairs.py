"""Pairs of query and database images to other programs, and the recall of their pairs."""

from __future__ import annotations

from pathlib import Path

from pipeline.project.params import Params
from pipeline.project.paths import Paths
from stages.eval.localisers.database import Database, open_split
from stages.eval.localisers.retrieval import PhotoSpace
from stages.eval.pairs import pairs_recall, read_pairs, write_pairs
from stages.index.manifest import Manifest
from stages.models.localiser.localiser import Localiser

Facts = list[tuple[str, object]]


def export_pairs(params: Params, paths: Paths, file: Path, count: int, device: str) -> Facts:
    """Write the most similar database images of each query, as `retrieve` finds them; return facts."""
    localiser = Localiser.load(paths.localiser, device).freeze()
    queries = open_split(paths.features("queries"), paths.index("queries"), localiser)
    database = Database.open(paths.features("database"), paths.index("database"), localiser)
    space = PhotoSpace(localiser, params.eval.space)
    pairs, without = write_pairs(file, queries, database, space, count)
    return [("pairs", pairs), ("queries without a feature", without), ("file", file)]


def measure_pairs(params: Params, paths: Paths, file: Path) -> Facts:
    """Return LR@N of another program's pairs, within `eval.radius_m`, as facts to print."""
    queries, database = (Manifest.open(paths.index(split)) for split in ("queries", "database"))
    matches = read_pairs(file, queries, database)
    recall = pairs_recall(matches, queries, database, params.eval.radius_m, params.eval.top)
    counts = [
        ("pairs", sum(map(len, matches))),
        ("queries without a pair", sum(not rows for rows in matches)),
    ]
    return [*counts, *((f"LR@{top}", round(percent, 1)) for top, percent in recall.items())]
