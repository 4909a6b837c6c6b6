"""Stage one: every image, and every planned view, goes through the frozen backbone once (4.10, 4.11)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cache.ledger import BadRow
from cache.store import FeatureStore, drop_reusable
from stages.augment import AugmentConfig
from stages.classes import ViewPlan
from stages.errors import ConfigError
from stages.extract.config import ExtractConfig
from stages.extract.line import ShardResult, backbone_for, extract_shard, too_many_bad
from stages.extract.plan import ShardOrder, Source, make_orders, open_for
from stages.manifest import Manifest

__all__ = ["ExtractConfig", "ExtractResult", "ShardOrder", "ShardResult", "extract_shard", "run"]

Mapper = Callable[[Callable[[ShardOrder], ShardResult], Sequence[ShardOrder]], Iterable[ShardResult]]


@dataclass(frozen=True)
class ExtractResult:
    """What a run of stage one did.

    Attributes
    ----------
    rows : int
        Rows of the shards asked for.
    done : int
        Of these, rows that were in the store before.
    computed, reused : int
        Rows put through the backbone, and rows copied from a store of the same recipe.
    bad : tuple of BadRow
        Rows tried in this run that could not be computed, with the reason.
    seconds : float
        Duration of the run.
    images_per_s : float
        Rows computed per second of the run; 0 if there were none.
    read_s, compute_s, write_s : float
        Seconds of work of the readers (summed over threads), the backbone and the writer.
    missing_rows : int
        Rows of the whole store that are still to do, in other shards.
    device : str
        Where the backbone ran.
    """

    rows: int
    done: int
    computed: int
    reused: int
    bad: tuple[BadRow, ...]
    seconds: float
    images_per_s: float
    read_s: float
    compute_s: float
    write_s: float
    missing_rows: int
    device: str

    def facts(self) -> list[tuple[str, object]]:
        """Return what a person wants to know of the run, in reading order."""
        facts: list[tuple[str, object]] = [
            ("rows", self.rows),
            ("done before", self.done),
            ("computed", self.computed),
            ("reused", self.reused),
            ("bad", len(self.bad)),
            ("missing in other shards", self.missing_rows),
            ("device", self.device),
        ]
        if self.computed:
            facts += [
                ("images per second", round(self.images_per_s, 1)),
                (
                    "reading / computing / writing",
                    f"{self.read_s:.1f} / {self.compute_s:.1f} / {self.write_s:.1f} s",
                ),
            ]
        facts.append(("seconds", round(self.seconds, 1)))
        return facts + [(f"bad: {item.key}", item.reason) for item in self.bad[:5]]


def run(
    config: ExtractConfig,
    *,
    split: str,
    manifest: Manifest,
    store: Path,
    shards: Iterable[int],
    views: ViewPlan | None = None,
    augment: AugmentConfig | None = None,
    seed: int,
    device: str,
    progress: Callable[[int, int], None] | None = None,
    replace: bool = False,
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
    store : Path
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
        Where the backbone runs: "cpu", "cuda", "cuda:1", ...
    progress : callable, optional
        Called with (rows done, rows to do).
    replace : bool
        Drop the store and begin anew.
    mapper : callable, optional
        Maps `extract_shard` over orders elsewhere, such as on a cluster; by default this process
        does one after the other. Results may come in any order.

    Raises
    ------
    ConfigError, WeightsError
        If the backbone cannot be had as configured.
    RecipeMismatch
        If the store was made by another recipe.
    InputError
        If too many images are unreadable.
    """
    begun = time.perf_counter()
    if (split == "views") != (views is not None):
        raise ValueError(f"split {split!r}: the split views, and no other, goes with a view plan")
    _require_device(device)
    source = Source(manifest, views, augment, seed)
    opened = open_for(config, source, store, replace=replace)
    shards = sorted(set(shards))
    rows = sum(_shard_rows(opened, shard, config.shards) for shard in shards)
    orders = make_orders(config, source, opened, shards, device=device)
    try:
        results = list((mapper or _here(progress))(extract_shard, orders))
    finally:
        backbone_for.cache_clear()  # gives the device's memory back
    bad = sorted((item for result in results for item in result.bad), key=lambda item: item.row)
    if len(bad) > int(config.max_bad_fraction * rows):
        raise too_many_bad(bad, config, store)
    missing = opened.ledger.missing()
    if not len(missing):
        drop_reusable(store)
    seconds = time.perf_counter() - begun
    computed, reused = sum(item.computed for item in results), sum(item.reused for item in results)
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
        missing_rows=sum(_chunk_rows(opened, int(chunk)) for chunk in missing),
        device=_device_name(device),
    )


def _here(progress: Callable[[int, int], None] | None) -> Mapper:
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


def _chunk_rows(store: FeatureStore, chunk: int) -> int:
    rows = store.spec.chunk_slice(chunk)
    return int(rows.stop - rows.start)


def _shard_rows(store: FeatureStore, shard: int, shards: int) -> int:
    return sum(_chunk_rows(store, chunk) for chunk in store.spec.shard_chunks(shard, shards))


def _require_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["it is not available"])[0]
        raise ConfigError(
            f"--device is {device!r}, which cannot be used ({reason}): try --device cpu"
        ) from error


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return device
