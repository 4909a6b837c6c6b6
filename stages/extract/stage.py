"""Stage one: every image, and every planned view, goes through the frozen backbone once (4.10, 4.11)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from cache.integrity import ChunkFault
from cache.storage.paths import StoragePath
from cache.storage.shard_claims import claimed
from cache.store import drop_reusable
from stages.devices import describe_device, resolve_device
from stages.extract.config import ExtractConfig
from stages.extract.plan import RowSource, ShardOrder, open_for
from stages.extract.read_ahead import end_readers
from stages.extract.result import ExtractResult, ShardResult, too_many_bad
from stages.extract.shard import backbone_for, extract_shard
from stages.extract.todo import make_orders, reopen_damaged, rows_of, shards_with_work
from stages.files import Progress
from stages.images.augment import AugmentConfig
from stages.index.manifest import Manifest
from stages.partition.views import ViewPlan

__all__ = ["ExtractConfig", "ExtractResult", "ShardOrder", "ShardResult", "extract_shard", "run"]

Mapper = Callable[[Callable[[ShardOrder], ShardResult], Sequence[ShardOrder]], Iterable[ShardResult]]


def run(
    config: ExtractConfig,
    *,
    split: str,
    manifest: Manifest,
    store: StoragePath,
    shards: Iterable[int],
    views: ViewPlan | None = None,
    augment: AugmentConfig | None = None,
    seed: int,
    device: str,
    progress: Progress | None = None,
    replace: bool = False,
    keep: bool = False,
    repair: bool = False,
    mapper: Mapper | None = None,
) -> ExtractResult:
    """Extract the features of some shards and return what was done.

    What is done already is left alone, so a run that was cut short is continued by running it again.

    Parameters
    ----------
    config : ExtractConfig
        The settings.
    split : str
        Which split it is: database, queries or views.
    manifest : Manifest
        The images.
    store : StoragePath
        The feature store, made if need be.
    shards : iterable of int
        Shards to do, out of ``config.shards``.
    views : ViewPlan, optional
        Extract these views of the manifest's images instead of the images.
    augment : AugmentConfig, optional
        How views are drawn; goes with `views`.
    seed : int
        Seed of the views.
    device : str
        Where the backbone runs: "cpu", "cuda", "cuda:1", ...; several, "cuda:0,cuda:1", for a `mapper`
        that gives each order one of them.
    progress : callable, optional
        Called with (rows done, rows to do).
    keep : bool
        Put a store of another recipe aside, to be found again when that recipe returns.
    replace : bool
        Drop the store and begin anew.
    repair : bool
        First read what is done and do damaged chunks again; without it only torn files are found.
    mapper : callable, optional
        Maps `extract_shard` over orders elsewhere, such as on a cluster; by default this process
        does one after the other. Results may come in any order.

    Raises
    ------
    ConfigError, WeightsError
        If the backbone cannot be had as configured.
    RecipeMismatch
        If the store was made by another recipe.
    StoreInUse
        If another run is at work on these shards.
    InputError
        If too many images are unreadable.
    """
    begun = time.perf_counter()
    if (split == "views") != (views is not None):
        raise ValueError(f"split {split!r}: the split views, and no other, goes with a view plan")
    device = resolve_device(device)
    source = RowSource(manifest, views, augment, seed)
    opened = open_for(config, source, store, replace=replace, keep=keep)
    wanted = {shard: opened.spec.shard_chunks(shard, config.shards) for shard in sorted(set(shards))}
    limit = int(config.max_bad_fraction * sum(rows_of(opened, chunks) for chunks in wanted.values()))
    results: list[ShardResult] = []
    faults: list[ChunkFault] = []
    with claimed(store, wanted if repair else shards_with_work(opened, wanted)):
        faults += reopen_damaged(opened, wanted, thorough=repair)
        orders = make_orders(config, source, opened, wanted, device=device)
        try:
            for result in (mapper or _here(progress))(extract_shard, orders):
                results.append(result)
                if sum(len(item.bad) for item in results) > limit:
                    raise too_many_bad([bad for item in results for bad in item.bad], config, store)
        finally:
            end_readers()
            backbone_for.cache_clear()  # gives the device's memory back
    missing = opened.ledger.missing()
    if not len(missing):
        drop_reusable(store)
    return _summary(
        results,
        rows=sum(rows_of(opened, chunks) for chunks in wanted.values()),
        missing_rows=rows_of(opened, missing),
        seconds=time.perf_counter() - begun,
        device=describe_device(device),
        damaged=tuple(faults),
    )


def _summary(
    results: Sequence[ShardResult],
    *,
    rows: int,
    missing_rows: int,
    seconds: float,
    device: str,
    damaged: tuple[ChunkFault, ...],
) -> ExtractResult:
    computed, reused = sum(item.computed for item in results), sum(item.reused for item in results)
    bad = sorted((item for result in results for item in result.bad), key=lambda item: item.row)
    return ExtractResult(
        rows=rows,
        done=rows - computed - reused - len(bad),
        computed=computed,
        reused=reused,
        bad=tuple(bad),
        seconds=seconds,
        images_per_s=computed / seconds if computed else 0.0,
        read_s=sum(item.read_s for item in results),
        compute_s=sum(item.compute_s for item in results),
        write_s=sum(item.write_s for item in results),
        missing_rows=missing_rows,
        device=device,
        damaged=damaged,
    )


def _here(progress: Progress | None) -> Mapper:
    """Return a mapper that works in this process and reports every batch."""

    def work(
        function: Callable[[ShardOrder], ShardResult], orders: Sequence[ShardOrder]
    ) -> Iterable[ShardResult]:
        total, done = sum(order.images for order in orders), 0

        def advance(images: int) -> None:
            nonlocal done
            done += images
            if progress is not None:
                progress(done, total)

        for order in orders:
            yield extract_shard(order, advance)

    return work
