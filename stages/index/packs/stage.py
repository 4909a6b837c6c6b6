"""The packing run: the images of a manifest -> shards, in parallel, and a manifest beside them."""

from __future__ import annotations

import csv
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.errors import InputError
from stages.files import Progress, replacing
from stages.index.manifest import Manifest, write_manifest
from stages.index.packs.config import PackConfig
from stages.index.packs.reader import SHARD, SLOT
from stages.index.packs.result import PackResult
from stages.index.packs.writer import Packed, pack_shard

MANIFEST = "manifest.parquet"
UNREADABLE = "unreadable.csv"


def run(
    config: PackConfig, *, manifest: Path, output: Path, workers: int, progress: Progress | None = None
) -> PackResult:
    """Pack the images of a manifest and return what was done.

    Shards that are there are left alone, so a run that was cut short is continued by running it
    again. The pack's manifest is written last: while it is there, every shard is.

    Parameters
    ----------
    config : PackConfig
        The settings.
    manifest : Path
        The images.
    output : Path
        Folder of the pack.
    workers : int
        Processes; 1 does the work in this one.
    progress : callable, optional
        Called with (images done, images to do).

    Raises
    ------
    InputError
        If the manifest is unusable, or is the pack's own.
    """
    begun = time.perf_counter()
    target = output / MANIFEST
    source = Manifest.open(manifest)
    if manifest.resolve() == target.resolve():
        raise InputError(f"{manifest} is the manifest of this very pack: name another folder to pack into")
    output.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shards = -(-source.rows // config.images_per_shard)
    work = partial(pack_shard, config, manifest.resolve(), output.resolve())
    packed: list[Packed] = []
    for item in _map(work, range(shards), workers):
        packed.append(item)
        if progress is not None:
            progress(sum(each.images for each in packed), source.rows)
    unreadable = tuple(fault for item in packed for fault in item.unreadable)
    _write_list(output / UNREADABLE, unreadable)
    # A relative root lets the pack be moved as a whole.
    root, batches = Path(os.path.relpath(output)), _with_places(source, config.images_per_shard)
    write_manifest(target, batches, root=root, zone=source.zone, source=source.source)
    return PackResult(
        manifest=target,
        images=source.rows,
        shards=shards,
        made=sum(item.made for item in packed),
        size=sum(item.size for item in packed),
        unreadable=unreadable,
        seconds=time.perf_counter() - begun,
    )


def _map(work: Callable[[int], Packed], shards: range, workers: int) -> Iterable[Packed]:
    """Yield every shard's result in order."""
    if min(workers, len(shards)) <= 1:
        yield from map(work, shards)
        return
    # Spawned, not forked: a fork copies the locks of threads that are not there any more.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(shards)), mp_context=context) as pool:
        try:
            yield from pool.map(work, shards)
        finally:
            pool.shutdown(cancel_futures=True)


def _with_places(source: Manifest, images_per_shard: int) -> Iterator[pa.RecordBatch]:
    first = 0
    for batch in source.batches():
        rows = np.arange(first, first + batch.num_rows)
        first += batch.num_rows
        kept = batch.select([name for name in batch.schema.names if name not in (SHARD, SLOT)])
        kept = kept.append_column(SHARD, pa.array((rows // images_per_shard).astype(np.int32)))
        yield kept.append_column(SLOT, pa.array((rows % images_per_shard).astype(np.int32)))


def _write_list(path: Path, unreadable: Iterable[tuple[str, str]]) -> None:
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("key", "reason"))
        writer.writerows(unreadable)
