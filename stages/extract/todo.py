"""What remains to be done: which chunks of which shards, and which rows of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cache.integrity import ChunkFault, check_chunk, repair, torn
from cache.store import FeatureStore, reusable
from stages.extract.config import ExtractConfig
from stages.extract.plan import RowSource, ShardOrder
from stages.extract.reuse import ReusableStore, find_carried

Todo = dict[int, npt.NDArray[np.int64]]


def shards_with_work(store: FeatureStore, shards: Mapping[int, range]) -> dict[int, range]:
    """Return the shards that have rows left to do, or torn files to mend, out of shard -> chunks."""
    every = [chunk for chunks in shards.values() for chunk in chunks]
    work = _todo(store, every).keys() | {fault.chunk for fault in torn(store, every)}
    return {shard: chunks for shard, chunks in shards.items() if not work.isdisjoint(chunks)}


def reopen_damaged(store: FeatureStore, shards: Mapping[int, range], *, thorough: bool) -> list[ChunkFault]:
    """Declare damaged chunks unfinished and return their faults.

    Parameters
    ----------
    store : FeatureStore
        The store; the shards have to be claimed.
    shards : mapping of int to range
        Shard -> chunks to look at.
    thorough : bool
        Read every byte; otherwise only what shows at a glance, such as a short file, is found.
    """
    chunks = [chunk for span in shards.values() for chunk in span]
    if thorough:
        faults = [fault for chunk in chunks for fault in check_chunk(store, chunk)]
    else:
        faults = list(torn(store, chunks))
    repair(store, faults)
    return faults


def make_orders(
    config: ExtractConfig, source: RowSource, store: FeatureStore, shards: Mapping[int, range], *, device: str
) -> list[ShardOrder]:
    """Return an order for every shard that has work left, out of shard -> chunks.

    Chunks that are done are left alone, but for their bad rows: those are tried again, since a
    missing disk or a broken file may have been mended meanwhile.
    """
    rows = sum(rows_of(store, chunks) for chunks in shards.values())
    bad_limit = int(config.max_bad_fraction * rows)
    asides = [ReusableStore.of(aside) for aside in reusable(store.path, store.recipe)]
    orders = []
    every = _todo(store, [chunk for chunks in shards.values() for chunk in chunks])
    for shard, chunks in sorted(shards.items()):
        whole = {chunk: every[chunk] for chunk in chunks if chunk in every}
        if not whole:
            continue
        carried = find_carried(store, asides, whole)
        first = store.spec.chunk_slice(min(whole)).start
        span = slice(first, store.spec.chunk_slice(max(whole)).stop)
        views = source.views
        orders.append(
            ShardOrder(
                config=config,
                store=store.path,
                manifest=source.manifest.path,
                shard=shard,
                todo={chunk: np.setdiff1d(rows, carried.rows) for chunk, rows in whole.items()},
                carried=carried,
                first_row=first,
                image_row=None if views is None else views.row[span],
                view=None if views is None else views.view[span],
                augment=source.augment,
                seed=source.seed,
                device=device,
                bad_limit=bad_limit,
                weights_id=store.recipe.weights_id,
                again=frozenset(entry.chunk for entry in store.ledger.entries(whole)),
                threads=0 if config.threads == "auto" else config.threads,
            )
        )
    return orders


def without_finished(order: ShardOrder, store: FeatureStore) -> tuple[ShardOrder, list[int]]:
    """Return the order without chunks that were finished since it was made, and those chunks.

    A cluster gives the order of a lost worker to another one: what the first one finished stays.
    """
    finished = [entry.chunk for entry in store.ledger.entries(order.todo) if entry.chunk not in order.again]
    todo = {chunk: rows for chunk, rows in order.todo.items() if chunk not in finished}
    return replace(order, todo=todo), finished


def rows_of(store: FeatureStore, chunks: Iterable[int]) -> int:
    """Return how many rows some chunks have."""
    slices = (store.spec.chunk_slice(int(chunk)) for chunk in chunks)
    return sum(int(rows.stop - rows.start) for rows in slices)


def _todo(store: FeatureStore, chunks: Sequence[int]) -> Todo:
    todo = {}
    finished = {entry.chunk: entry for entry in store.ledger.entries(chunks)}
    for chunk in chunks:
        rows = store.spec.chunk_slice(chunk)
        if chunk not in finished:
            todo[chunk] = np.arange(rows.start, rows.stop, dtype=np.int64)
        elif bad := finished[chunk].bad:
            todo[chunk] = np.array([item.row for item in bad], dtype=np.int64)
    return todo
