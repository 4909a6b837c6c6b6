"""One split's extraction: from parameters and paths to the stage's call, here or on a cluster."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace as changed

from cache.spec import StoreSpec
from pipeline.console import size
from pipeline.project import dvc_link
from pipeline.project.params import Params
from pipeline.project.paths import Paths
from pipeline.runners.dask_cluster import connect, cores, local_workers, map_shards
from stages.errors import ConfigError
from stages.extract.plan import RowSource, ShardOrder, recipe_for
from stages.extract.result import ExtractResult, ShardResult
from stages.extract.shard import extract_shard
from stages.extract.stage import ExtractInputs, run
from stages.files import Progress, open_parquet
from stages.index.manifest import Manifest
from stages.partition.views import ViewPlan


def storage_line(params: Params, paths: Paths, split: str) -> str:
    """Return what a split's features take once all are there, per image and in total, and where.

    With `extract.cut` that is a hundred times what it is without: it is said before the work begins.
    """
    if split == "views":
        with open_parquet(paths.partition / "views.parquet", made_by="pipeline partition") as plan:
            rows, augment, what = plan.metadata.num_rows, params.augment, "views"
    else:
        rows, augment, what = Manifest.open(paths.index(split)).rows, None, "images"
    recipe = recipe_for(params.extract, augment, params.seeds.views)
    each = StoreSpec.for_rows(rows, recipe.outputs, recipe.dtype).row_bytes
    folder = paths.features(split).parent
    return f"{split}: {rows:,} {what} x {size(each)} = {size(rows * each)} in {folder}"


def extract_split(
    params: Params,
    paths: Paths,
    split: str,
    *,
    shards: Iterable[int],
    device: str,
    replace: bool,
    keep: bool,
    repair: bool,
    scheduler: str | None,
    progress: Progress,
) -> ExtractResult:
    """Return what extracting some shards of one split did; see `stages.extract.stage.run`.

    Several devices, ``cuda:0,cuda:1``, each get a worker of their own.

    Raises
    ------
    ConfigError
        If a GPU is to decode where none computes: the features would not be those of the recipe.
    """
    if params.extract.decoder == "nvjpeg" and not device.startswith("cuda"):
        raise ConfigError(
            f"extract.decoder is nvjpeg, which needs a GPU, and the device is {device}: give --device cuda, "
            "or set extract.decoder: pillow"
        )
    if "," in device and scheduler is None:
        scheduler = f"local:{len(device.split(','))}"

    def on_cluster(_: object, orders: Sequence[ShardOrder]) -> Iterable[ShardResult]:
        return work_on_cluster(orders, scheduler or "", progress)

    if scheduler:
        local_workers(scheduler)  # a slip in the address shows before any work
    dvc_link.remove_stale_link(paths, split)
    with ended_like_ctrl_c():
        inputs = ExtractInputs(
            params.extract,
            source=_source(params, paths, split),
            store=paths.features(split),
            shards=tuple(shards),
            device=device,
            replace=replace,
            keep=keep,
            repair=repair,
        )
        result = run(inputs, progress=progress, mapper=on_cluster if scheduler else None)
    dvc_link.write_link(paths, split)
    return result


def _source(params: Params, paths: Paths, split: str) -> RowSource:
    if split != "views":
        return RowSource(Manifest.open(paths.index(split)))
    views = ViewPlan.load(paths.partition / "views.parquet")
    return RowSource(Manifest.open(paths.index("database")), views, params.augment, params.seeds.views)


def work_on_cluster(
    orders: Sequence[ShardOrder], scheduler: str, progress: Progress
) -> Iterator[ShardResult]:
    """Yield the results of all orders, worked off on a Dask cluster; no orders start none.

    With `extract.threads: auto`, local workers share the machine's cores.
    """
    if not orders:
        return
    workers = local_workers(scheduler)
    share = max(1, cores() // workers) if workers else 0
    orders = [changed(order, threads=order.threads or share) for order in orders]
    done, total = 0, sum(order.images for order in orders)
    with connect(scheduler) as client:
        for order, result in map_shards(extract_on_worker, orders, client):
            done += order.images
            progress(done, total)
            yield result


def extract_on_worker(order: ShardOrder) -> ShardResult:
    """Finish one shard on a Dask worker, on the device that falls to it."""
    import torch
    from distributed import get_worker

    devices = order.device.split(",")
    if devices == ["cuda"] and torch.cuda.device_count() > 1:
        devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return extract_shard(changed(order, device=device_of_worker(str(get_worker().name), devices)))


def device_of_worker(name: str, devices: Sequence[str]) -> str:
    """Return the device of a worker: in turns where workers are numbered, as local ones are."""
    return devices[int(name) % len(devices)] if name.isdigit() else devices[0]


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, which batch schedulers send, do what Ctrl-C does: drop the chunk, free the claims."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread, which alone can set handlers
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
