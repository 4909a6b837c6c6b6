"""hloc's pairs file: a line ``query database-image`` per pair, the best pair of a query first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cache.reader import FeatureReader, gather
from stages.errors import InputError
from stages.eval.localisers.database import Database
from stages.eval.localisers.retrieval import PhotoSpace, nearest_photos
from stages.files import replacing
from stages.index.manifest import Manifest
from stages.models.localiser.recall import errors_m, recall_percent


def write_pairs(
    path: Path, queries: tuple[FeatureReader, Manifest], database: Database, space: PhotoSpace, count: int
) -> tuple[int, int]:
    """Write the `count` most similar database images of each query; return pairs, queries without a feature.

    Raises
    ------
    InputError
        If a key holds a space, which separates the two names of a line.
    """
    reader, manifest = queries
    rows = np.flatnonzero(reader.valid)
    vectors = space.vectors(gather(reader, rows, space.inputs))
    nearest = nearest_photos(vectors, database.reader, space, count).rows
    query_keys, database_keys = _keys(manifest), _keys(database.manifest)
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for row, matches in zip(rows.tolist(), nearest.tolist(), strict=True):
            for match in matches:
                if match >= 0:
                    file.write(f"{_one_word(query_keys[row])} {_one_word(database_keys[match])}\n")
    return int((nearest >= 0).sum()), manifest.rows - len(rows)


def read_pairs(path: Path, queries: Manifest, database: Manifest) -> list[list[int]]:
    """Return the database rows that a pairs file names for each query, in the file's order.

    Raises
    ------
    InputError
        If a line is not a pair, or names an image that is not indexed.
    """
    query_rows = {key: row for row, key in enumerate(_keys(queries))}
    database_rows = {key: row for row, key in enumerate(_keys(database))}
    matches: list[list[int]] = [[] for _ in range(queries.rows)]
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): expected UTF-8 text") from error
    for number, line in enumerate(lines, 1):
        names = line.split()
        if not names:
            continue
        if len(names) != 2:
            raise InputError(f"line {number} of {path} is {line!r}: expected a query and a database image")
        for name, rows, split in ((names[0], query_rows, "queries"), (names[1], database_rows, "database")):
            if name not in rows:
                raise InputError(
                    f"line {number} of {path} names {name}, which is not in the index of {split}: expected "
                    f"a key such as {next(iter(rows))}"
                )
        matches[query_rows[names[0]]].append(database_rows[names[1]])
    return matches


def pairs_recall(
    matches: Sequence[Sequence[int]],
    queries: Manifest,
    database: Manifest,
    radius_m: float,
    tops: Sequence[int],
) -> dict[int, float]:
    """Return LR@N in percent of pairs; a query without a pair counts as not located.

    Raises
    ------
    InputError
        If queries and database lie in different UTM zones.
    """
    if queries.zone != database.zone:
        raise InputError(
            f"the queries lie in UTM zone {queries.zone or 'unknown'}, the database in "
            f"{database.zone or 'unknown'}: index both from one data set with `pipeline index`"
        )
    count = max([1, *map(len, matches)])
    predicted = np.full((len(matches), count, 2), np.nan)
    positions = database.positions()
    for row, rows in enumerate(matches):
        predicted[row, : len(rows)] = positions[np.array(rows, np.int64)]
    return recall_percent(errors_m(predicted, queries.positions()), radius_m, tops)


def _keys(manifest: Manifest) -> list[str]:
    return manifest.keys(0, manifest.rows)


def _one_word(key: str) -> str:
    if any(letter.isspace() for letter in key):
        raise InputError(f"{key!r} holds a space, which separates names in a pairs file: rename the image")
    return key
