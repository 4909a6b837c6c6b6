"""What remains to be done: the shards with work left, their chunks and rows, as orders for workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cache.integrity import ChunkFault, check_chunk, repair, torn
from cache.store import FeatureStore, reusable
from stages.extract.config import ExtractConfig
from stages.extract.crops import square_rows
from stages.extract.plan import RowSource, ShardOrder
from stages.extract.reuse import ReusableStore, find_reused
from stages.images.preprocess import Preprocess


def shards_with_work(store: FeatureStore, shards: Mapping[int, range]) -> dict[int, range]:
    """Return the shards, as shard -> chunks, that have rows left to do or torn files."""
    chunks = [chunk for span in shards.values() for chunk in span]
    work = _rows_to_do(store, chunks).keys() | {fault.chunk for fault in torn(store, chunks)}
    return {shard: span for shard, span in shards.items() if not work.isdisjoint(span)}


def reopen_damaged(store: FeatureStore, shards: Mapping[int, range], *, thorough: bool) -> list[ChunkFault]:
    """Mark damaged chunks as unfinished and return their faults; the shards must be claimed.

    A thorough check reads every byte. Otherwise only missing, short or empty files are detected.
    """
    chunks = [chunk for span in shards.values() for chunk in span]
    if thorough:
        faults = [fault for chunk in chunks for fault in check_chunk(store, chunk)]
    else:
        faults = list(torn(store, chunks))
    repair(store, faults)
    return faults


def plan_shards(
    config: ExtractConfig,
    source: RowSource,
    store: FeatureStore,
    shards: Mapping[int, range],
    *,
    preprocess: Preprocess,
    device: str,
    bad_limit: int,
) -> list[ShardOrder]:
    """Return an order for every shard, out of shard -> chunks, that has rows left to do."""
    older = [ReusableStore.of(aside) for aside in reusable(store.path, store.recipe)]
    unfinished = _rows_to_do(store, [chunk for chunks in shards.values() for chunk in chunks])
    if source.crop is not None:
        todo = np.sort(np.concatenate([*unfinished.values(), np.empty(0, np.int64)]).astype(np.int64))
        older += square_rows(source.crop, store.recipe, source.manifest, todo)
    orders = []
    for shard, chunks in sorted(shards.items()):
        rows = {chunk: unfinished[chunk] for chunk in chunks if chunk in unfinished}
        if not rows:
            continue
        reused = find_reused(store, older, rows)
        span = slice(store.spec.chunk_slice(min(rows)).start, store.spec.chunk_slice(max(rows)).stop)
        views = source.views
        orders.append(
            ShardOrder(
                config=config,
                preprocess=preprocess,
                store=store.path,
                manifest=source.manifest.path,
                shard=shard,
                todo={chunk: np.setdiff1d(wanted, reused.rows) for chunk, wanted in rows.items()},
                retries=frozenset(entry.chunk for entry in store.ledger.entries(rows)),
                reused=reused,
                first_row=span.start,
                image_row=None if views is None else views.row[span],
                view=None if views is None else views.view[span],
                augment=source.augment,
                seed=source.seed,
                device=device,
                bad_limit=bad_limit,
                weights_id=store.recipe.weights_id,
                threads=0 if config.threads == "auto" else config.threads,
            )
        )
    return orders


def without_finished(order: ShardOrder, store: FeatureStore) -> tuple[ShardOrder, list[int]]:
    """Return the order without the chunks that were finished since it was made, and those chunks.

    A cluster gives the order of a lost worker to another worker, which must not repeat its work.
    """
    finished = [entry.chunk for entry in store.ledger.entries(order.todo) if entry.chunk not in order.retries]
    todo = {chunk: rows for chunk, rows in order.todo.items() if chunk not in finished}
    return replace(order, todo=todo), finished


def count_rows(store: FeatureStore, chunks: Iterable[int]) -> int:
    """Return how many rows some chunks have."""
    slices = (store.spec.chunk_slice(int(chunk)) for chunk in chunks)
    return sum(int(rows.stop - rows.start) for rows in slices)


def _rows_to_do(store: FeatureStore, chunks: Sequence[int]) -> dict[int, npt.NDArray[np.int64]]:
    """Return chunk -> rows to do: all rows of unfinished chunks, the bad rows of finished ones."""
    todo = {}
    finished = {entry.chunk: entry for entry in store.ledger.entries(chunks)}
    for chunk in chunks:
        rows = store.spec.chunk_slice(chunk)
        if chunk not in finished:
            todo[chunk] = np.arange(rows.start, rows.stop, dtype=np.int64)
        elif bad := finished[chunk].bad:
            # Bad rows are tried again: a missing disk or a broken file may have been repaired meanwhile.
            todo[chunk] = np.array([item.row for item in bad], dtype=np.int64)
    return todo
