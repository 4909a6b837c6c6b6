"""Several sources in one manifest, such as both query sets of a benchmark; a column names each row's set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.errors import InputError
from stages.index.batch import EntryBatch
from stages.index.hashing import FILE_BYTES
from stages.index.manifest import Manifest
from stages.index.sources.registry import KINDS, read_source

SET = "query_set"  # column that names the set of each row, where there are several
LOOKED_FOR = 10  # enough of the first images of a list to notice a wrong folder
_PACK = "pack_shard"


@dataclass(frozen=True)
class ImageSets:
    """The sources of one manifest, in its order. Rows of a single source have no set.

    Keys are paths relative to the folder of the first source: another source at the end changes no key of
    the others, and so their features are reused.
    """

    sources: tuple[Path, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.sources))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name of each set: the last part of its path that no other source has at this depth."""
        paths = [_parts(source) for source in self.sources]
        counts = [Counter(path[depth : depth + 1] for path in paths) for depth in range(max(map(len, paths)))]
        names = []
        for source, path in zip(self.sources, paths, strict=True):
            own = (part for depth, part in enumerate(path) if counts[depth][(part,)] == 1)
            names.append(next(own, str(source)))
        return tuple(names) if len(set(names)) == len(names) else tuple(map(str, self.sources))

    def root(self) -> Path:
        """Return the folder that keys are relative to."""
        return _root(self.sources[0])

    def total_bytes(self) -> int:
        """Return the size of the files to read; 0 if there is a folder among the sources."""
        if any(source.is_dir() for source in self.sources):
            return 0
        return sum(source.stat().st_size for source in self.sources)

    def skipped_before(self) -> int:
        """Return how many images of packs and manifests were left out when these were made."""
        return sum(Manifest.open(source).skipped or 0 for source in self.sources if _is_manifest(source))

    def read(self) -> Iterator[tuple[EntryBatch, int]]:
        """Yield the batches of all sources, each with the number of images or bytes read so far.

        Raises
        ------
        InputError
            If one of several sources is a pack, or one of them cannot be read.
        """
        if len(self.sources) == 1:
            yield from read_source(self.sources[0])
            return
        streams = [read_source(source) for source in self.sources]
        firsts = [next(stream, None) for stream in streams]
        # All rows of a manifest have the same columns; the first batch of a source tells which it has.
        columns = {name: None for first in firsts if first for name in first[0].extra_columns}
        if _PACK in columns:
            raise InputError(
                f"{self} are several sources, and one is a pack: name the images that the pack was made of"
            )
        before = 0
        for source, name, first, stream in zip(self.sources, self.names, firsts, streams, strict=True):
            done, prefix = 0, os.path.relpath(_root(source), self.root())
            for batch, done in chain([first] if first else [], stream):
                batch.keys = _below(prefix, batch.keys, self.root())
                batch.extra_columns = _columns(batch, list(columns)) | {SET: pa.repeat(name, len(batch))}
                yield batch, before + done
            before += done

    def absent(self, manifest: Manifest) -> tuple[str, ...]:
        """Return those of each list's first images that do not exist; images of folders and packs do."""
        if len(self.sources) == 1:
            first = manifest.keys(0, LOOKED_FOR)
            return () if _lists_files_that_exist(self.sources[0]) else _absent(manifest, first)
        names, keys = manifest.column(SET), manifest.column("key")
        lists = (
            name
            for source, name in zip(self.sources, self.names, strict=True)
            if not _lists_files_that_exist(source)
        )
        return tuple(path for name in lists for path in _absent(manifest, keys[names == name][:LOOKED_FOR]))


def rows_by_set(manifest: Manifest) -> dict[str, int]:
    """Return the number of rows of each set in the manifest's order; nothing without sets."""
    if SET not in manifest.column_names:
        return {}
    return dict(Counter(manifest.column(SET).tolist()))


def _parts(source: Path) -> tuple[str, ...]:
    """Return the parts of a path from its end; a list or table is named without its ending."""
    path = Path(os.path.normpath(source.absolute()))
    return tuple(reversed((path.with_suffix("") if path.suffix.lower() in KINDS else path).parts))


def _is_manifest(source: Path) -> bool:
    return source.suffix.lower() == ".parquet" and not source.is_dir()


def _root(source: Path) -> Path:
    if _is_manifest(source):
        return Manifest.open(source).root
    return source if source.is_dir() else source.parent


def _below(prefix: str, keys: pa.StringArray, root: Path) -> pa.StringArray:
    """Return keys that start at `prefix` as keys that start at the root."""
    if prefix == os.curdir:
        return keys
    if not prefix.strip("./"):  # a folder above the root: some keys may lead back into it
        return pa.array([os.path.relpath(root / prefix / key, root) for key in keys.to_pylist()], pa.string())
    return pc.binary_join_element_wise(pa.scalar(prefix), keys, "/")


def _columns(batch: EntryBatch, names: list[str]) -> dict[str, pa.Array]:
    """Return the extra columns of these names, as text, or empty where the batch has none."""
    columns = {}
    for name in names:
        column = batch.extra_columns.get(name)
        if name == FILE_BYTES:
            columns[name] = pa.array(np.zeros(len(batch), np.int64)) if column is None else column
        else:
            columns[name] = pa.repeat("", len(batch)) if column is None else column.cast(pa.string())
    return columns


def _lists_files_that_exist(source: Path) -> bool:
    return source.is_dir() or _is_manifest(source)


def _absent(manifest: Manifest, keys: list[str]) -> tuple[str, ...]:
    return tuple(str(path) for path in map(manifest.image_path, keys) if not os.path.lexists(path))
