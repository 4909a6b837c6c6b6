"""Packing: write the images of a manifest to shards in parallel, and a manifest beside them."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.errors import InputError
from stages.files import Progress, replacing
from stages.images.worker_pool import worker_pool
from stages.index.manifest import Manifest
from stages.index.manifest_writer import write_manifest
from stages.index.packs.config import PackConfig
from stages.index.packs.reader import SHARD, SLOT
from stages.index.packs.result import PackResult
from stages.index.packs.writer import PackedShard, pack_shard

MANIFEST = "manifest.parquet"
UNREADABLE = "unreadable.csv"


@dataclass(frozen=True)
class PackInputs:
    """What packing works on; `output` is the pack's folder, and one worker means no extra process."""

    config: PackConfig
    manifest: Path
    output: Path
    workers: int


def run(inputs: PackInputs, *, progress: Progress | None = None) -> PackResult:
    """Pack the images of a manifest; progress counts images.

    Complete shards are kept, so running again continues an interrupted run. The
    pack's manifest is written last: if it exists, every shard does.

    Raises
    ------
    InputError
        If the manifest is unusable, or is the pack's own.
    """
    start = time.perf_counter()
    config, output, target = inputs.config, inputs.output, inputs.output / MANIFEST
    source = Manifest.open(inputs.manifest)
    if inputs.manifest.resolve() == target.resolve():
        raise InputError(
            f"{inputs.manifest} is the manifest of this very pack: name another folder to pack into"
        )
    output.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shards = -(-source.rows // config.images_per_shard)
    work = partial(pack_shard, config, inputs.manifest.resolve(), output.resolve())
    packed: list[PackedShard] = []
    for shard in _map(work, range(shards), inputs.workers):
        packed.append(shard)
        if progress is not None:
            progress(sum(each.images for each in packed), source.rows)
    unreadable = tuple(image for shard in packed for image in shard.unreadable)
    _write_unreadable(output / UNREADABLE, unreadable)
    # A relative root lets the pack be moved as a whole.
    root, batches = Path(os.path.relpath(output)), _with_locations(source, config.images_per_shard)
    zone, told_by, skipped = source.zone, source.source, source.skipped or 0
    write_manifest(target, batches, root=root, zone=zone, source=told_by, skipped=lambda: skipped)
    return PackResult(
        manifest=target,
        images=source.rows,
        shards=shards,
        made=sum(shard.made for shard in packed),
        size=sum(shard.size for shard in packed),
        unreadable=unreadable,
        seconds=time.perf_counter() - start,
    )


def _map(work: Callable[[int], PackedShard], shards: range, workers: int) -> Iterable[PackedShard]:
    """Yield the result of every shard in order."""
    if min(workers, len(shards)) <= 1:
        yield from map(work, shards)
        return
    with worker_pool(min(workers, len(shards))) as pool:
        try:
            yield from pool.map(work, shards)
        finally:
            pool.shutdown(cancel_futures=True)


def _with_locations(source: Manifest, images_per_shard: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a manifest with the shard and slot of each image."""
    first = 0
    for batch in source.batches():
        rows = np.arange(first, first + batch.num_rows)
        first += batch.num_rows
        columns = batch.select([name for name in batch.schema.names if name not in (SHARD, SLOT)])
        columns = columns.append_column(SHARD, pa.array((rows // images_per_shard).astype(np.int32)))
        yield columns.append_column(SLOT, pa.array((rows % images_per_shard).astype(np.int32)))


def _write_unreadable(path: Path, unreadable: Iterable[tuple[str, str]]) -> None:
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("key", "reason"))
        writer.writerows(unreadable)
