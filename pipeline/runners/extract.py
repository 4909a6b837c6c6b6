"""Extract one split of the project, here or on a cluster."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cache.spec import StoreSpec
from pipeline.console import size
from pipeline.project import dvc_link
from pipeline.project.params import Params
from pipeline.project.paths import CROP_SPLITS, Paths
from pipeline.runners.dask_cluster import connect, cores, local_workers, map_shards
from stages.devices import let_idle_threads_sleep, resolve_device
from stages.errors import ConfigError
from stages.extract.crops import Crop
from stages.extract.elsewhere import extract_elsewhere
from stages.extract.plan import RowSource, ShardOrder, describe, recipe_for
from stages.extract.result import ExtractResult, ShardResult
from stages.extract.stage import ExtractInputs, Report, run
from stages.files import Progress, open_parquet
from stages.images.preprocess import more_crops
from stages.index.manifest import Manifest
from stages.partition.views import ViewPlan


def storage_line(params: Params, paths: Paths, split: str) -> str:
    """Return a line with the size of a split's features, per image and in total, and their folder.

    It is printed before the work starts, because features with `extract.cut` are about 100 times larger.
    """
    if split == "views":
        with open_parquet(paths.partition / "views.parquet", made_by="pipeline partition") as plan:
            rows, augment, noun = plan.metadata.num_rows, params.augment, "views"
    else:
        manifest = Manifest.open(paths.index("queries" if split in CROP_SPLITS.values() else split))
        rows, augment, noun = manifest.rows, None, "images"
    recipe = recipe_for(params.extract, augment, params.seeds.views)
    row_bytes = StoreSpec.for_rows(rows, recipe.outputs, recipe.dtype).row_bytes
    folder = paths.features(split).parent
    return f"{split}: {rows:,} {noun} x {size(row_bytes)} = {size(rows * row_bytes)} in {folder}"


@dataclass(frozen=True)
class ExtractOptions:
    """Options of `pipeline extract`; `shards` of None means all of them, the others are off by default."""

    device: str
    shards: Sequence[int] | None = None
    replace: bool = False
    keep: bool = False
    repair: bool = False
    scheduler: str | None = None


def extract_split(
    params: Params,
    paths: Paths,
    split: str,
    options: ExtractOptions,
    *,
    progress: Progress,
    report: Report | None = None,
) -> ExtractResult:
    """Extract shards of one split, here or on a cluster; see `stages.extract.stage.run`.

    With several devices, such as ``cuda:0,cuda:1``, each device gets a local worker.

    Raises
    ------
    ConfigError
        If the scheduler's address is not valid, or `extract.decoder` needs a GPU and the device is none.
    """
    device, scheduler = options.device, options.scheduler
    if params.extract.decoder == "nvjpeg" and not resolve_device(device).startswith("cuda"):
        raise ConfigError(
            f"extract.decoder is nvjpeg, which needs a GPU, but the device is {device}: use --device cuda, "
            "or set extract.decoder: pillow"
        )
    if "," in device and scheduler is None:
        scheduler = f"local:{len(device.split(','))}"
    if scheduler:
        local_workers(scheduler)  # a wrong address is an error before any work

    def on_cluster(_: object, orders: Sequence[ShardOrder]) -> Iterable[ShardResult]:
        return work_on_cluster(orders, scheduler or "", progress)

    inputs = ExtractInputs(
        params.extract,
        source=_source(params, paths, split),
        store=paths.features(split),
        shards=range(params.extract.shards) if options.shards is None else options.shards,
        device=device,
        replace=options.replace,
        keep=options.keep,
        repair=options.repair,
    )
    dvc_link.remove_stale_link(paths, split)
    with sigterm_as_ctrl_c():
        result = run(inputs, progress=progress, report=report, mapper=on_cluster if scheduler else None)
    if split == "database" and not result.missing_rows:
        here = "cpu" if scheduler else device
        extract_elsewhere(params.extract, inputs.source.manifest, paths.elsewhere, here)
    if split not in CROP_SPLITS.values():  # DVC tracks the queries, of which these are crops
        dvc_link.write_link(paths, split)
    return result


def crop_splits(params: Params) -> list[str]:
    """Return the splits of further crops of the queries (`eval.crops`)."""
    if params.eval.crops == 1:
        return []
    preprocessing = {} if params.extract.imported else describe(params.extract).preprocessing
    return [CROP_SPLITS[position] for position in more_crops(params.eval.crops, preprocessing)]


def _source(params: Params, paths: Paths, split: str) -> RowSource:
    for position, name in CROP_SPLITS.items():
        if split == name:
            crop = Crop(position, paths.features("queries"))
            return RowSource(Manifest.open(paths.index("queries")), crop=crop)
    if split != "views":
        return RowSource(Manifest.open(paths.index(split)))
    views = ViewPlan.load(paths.partition / "views.parquet")
    return RowSource(Manifest.open(paths.index("database")), views, params.augment, params.seeds.views)


def work_on_cluster(
    orders: Sequence[ShardOrder], scheduler: str, progress: Progress
) -> Iterator[ShardResult]:
    """Yield the results of all orders from a Dask cluster, which is not started without orders.

    With `extract.threads: auto`, local workers share the machine's cores.
    """
    if not orders:
        return
    workers = local_workers(scheduler)
    threads = max(1, cores() // workers) if workers else 0
    orders = [replace(order, threads=order.threads or threads) for order in orders]
    done, total = 0, sum(order.images for order in orders)
    with connect(scheduler) as client:
        for order, result in map_shards(extract_on_worker, orders, client):
            done += order.images
            progress(done, total)
            yield result


def extract_on_worker(order: ShardOrder) -> ShardResult:
    """Extract one shard on a Dask worker, on the device assigned to the worker."""
    let_idle_threads_sleep()
    import torch
    from distributed import get_worker

    from stages.extract.shard import extract_shard

    devices = order.device.split(",")
    if devices == ["cuda"] and torch.cuda.device_count() > 1:
        devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return extract_shard(replace(order, device=device_of_worker(str(get_worker().name), devices)))


def device_of_worker(name: str, devices: Sequence[str]) -> str:
    """Return the device of a worker: in turns for numbered workers, as local ones are, else the first."""
    return devices[int(name) % len(devices)] if name.isdigit() else devices[0]


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Handle SIGTERM, which batch schedulers send, like Ctrl-C: drop the chunk and release the claims."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # only the main thread can set signal handlers
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
