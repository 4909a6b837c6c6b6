"""Extract: pass every image, and every planned view, through the frozen backbone once (4.10, 4.11).

What computes features is imported only if work is left, because PyTorch takes seconds to import.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from cache.integrity import repair_metadata
from cache.storage.paths import StoragePath
from cache.storage.shard_claims import claimed
from cache.store import drop_reusable, open_store, store_exists
from stages.devices import describe_device, require_devices, resolve_device
from stages.extract.config import ExtractConfig
from stages.extract.plan import RowSource, ShardOrder, describe, open_for, recipe_for
from stages.extract.result import ExtractResult, ShardResult, too_many_bad
from stages.extract.todo import count_rows, plan_shards, reopen_damaged, shards_with_work
from stages.files import Progress

Mapper = Callable[[Callable[[ShardOrder], ShardResult], Sequence[ShardOrder]], Iterable[ShardResult]]
Report = Callable[[str], None]


@dataclass(frozen=True)
class ExtractInputs:
    """What to extract, and to where.

    Attributes
    ----------
    config : ExtractConfig
        The settings.
    source : RowSource
        The images, or the planned views of them.
    store : StoragePath
        The feature store; created if it does not exist.
    shards : sequence of int
        The shards to finish, out of ``config.shards``.
    device : str
        Where the backbone runs: "auto", "cpu", "cuda:1"; or several for a mapper, "cuda:0,cuda:1".
    replace : bool
        Delete the store and start again.
    keep : bool
        Move a store of another recipe aside; it is found again when that recipe returns.
    repair : bool
        First read what is done and redo damaged chunks; otherwise only torn files are detected.
    """

    config: ExtractConfig
    source: RowSource
    store: StoragePath
    shards: Sequence[int]
    device: str
    replace: bool = False
    keep: bool = False
    repair: bool = False


def run(
    inputs: ExtractInputs,
    *,
    progress: Progress | None = None,
    report: Report | None = None,
    mapper: Mapper | None = None,
) -> ExtractResult:
    """Extract the features of some shards and return what was done.

    Finished work is kept: run it again to continue an interrupted run.

    Parameters
    ----------
    inputs : ExtractInputs
        What to extract, and to where.
    progress : callable, optional
        Called with (rows done, rows to do).
    report : callable, optional
        Called with a line that names backbone and device, once it is known that work is left.
    mapper : callable, optional
        Maps `extract_shard` over the orders elsewhere, such as on a cluster; by default this process
        finishes one shard after the other. Results may come in any order.

    Raises
    ------
    ConfigError, WeightsError
        If the backbone is not available as configured.
    RecipeMismatch
        If the store was made with another recipe.
    StoreInUse
        If another run is working on these shards.
    InputError
        If too many images are unreadable.
    """
    started = time.perf_counter()
    config, source = inputs.config, inputs.source
    require_devices(inputs.device)
    card = describe(config) if source.crop is None else source.crop.applied_to(describe(config))
    recipe = recipe_for(config, source.augment, source.seed, card)
    if inputs.replace:  # before old features are deleted, the backbone must be able to make new ones
        from stages.extract.shard import backbone_for

        backbone_for(config, resolve_device(inputs.device).split(",")[0], recipe.weights_id)
    described = repair_metadata(open_store(inputs.store)) if _is_to_repair(inputs) else []
    store = open_for(source, recipe, inputs.store, replace=inputs.replace, keep=inputs.keep)
    shards = {shard: store.spec.shard_chunks(shard, config.shards) for shard in sorted(set(inputs.shards))}
    rows = sum(count_rows(store, chunks) for chunks in shards.values())
    bad_limit = int(config.max_bad_fraction * rows)
    with claimed(inputs.store, shards if inputs.repair else shards_with_work(store, shards)):
        damaged = reopen_damaged(store, shards, thorough=inputs.repair)
        orders = plan_shards(
            config,
            source,
            store,
            shards,
            preprocess=card.preprocess,
            device=inputs.device,
            bad_limit=bad_limit,
        )
        orders, device = _on_devices(orders, inputs, report)
        results = _finish_shards(orders, mapper or _in_this_process(progress), bad_limit)
    missing = store.ledger.missing()
    if not len(missing):
        drop_reusable(inputs.store)
    return ExtractResult.of_shards(
        results,
        rows=rows,
        missing_rows=count_rows(store, missing),
        seconds=time.perf_counter() - started,
        device=device,
        damaged=tuple(damaged),
        described=tuple(described),
    )


def _is_to_repair(inputs: ExtractInputs) -> bool:
    return inputs.repair and not inputs.replace and store_exists(inputs.store)


def _on_devices(
    orders: list[ShardOrder], inputs: ExtractInputs, report: Report | None
) -> tuple[list[ShardOrder], str]:
    """Return the orders for the devices that their name stands for, and these in words; "" without orders."""
    if not orders:
        return [], ""
    device = resolve_device(inputs.device)
    described = describe_device(device)
    if report is not None:
        report(f"extract {inputs.store.stem}: {inputs.config.backbone} on {described}")
    return [replace(order, device=device) for order in orders], described


def _finish_shards(orders: Sequence[ShardOrder], mapper: Mapper, bad_limit: int) -> list[ShardResult]:
    """Return the results of all orders; raise InputError once their bad rows exceed the limit together."""
    if not orders:
        return []
    from stages.extract.read_ahead import end_readers
    from stages.extract.shard import backbone_for, extract_shard

    results: list[ShardResult] = []
    try:
        for result in mapper(extract_shard, orders):
            results.append(result)
            bad = [row for item in results for row in item.bad]
            if len(bad) > bad_limit:
                raise too_many_bad(bad, orders[0].config, orders[0].store)
    finally:
        end_readers()
        backbone_for.cache_clear()  # frees the device's memory
    return results


def _in_this_process(progress: Progress | None) -> Mapper:
    """Return a mapper that works in this process and reports every batch."""

    def finish(
        function: Callable[[ShardOrder], ShardResult], orders: Sequence[ShardOrder]
    ) -> Iterable[ShardResult]:
        from stages.extract.shard import extract_shard

        total, done = sum(order.images for order in orders), 0

        def advance(images: int) -> None:
            nonlocal done
            done += images
            if progress is not None:
                progress(done, total)

        for order in orders:
            yield extract_shard(order, advance)

    return finish
