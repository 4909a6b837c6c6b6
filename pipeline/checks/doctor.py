"""What stands in the way of an extraction: looked for before hours are spent, each with what mends it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from cache.errors import PlacecacheError
from cache.recipe import Recipe
from cache.spec import StoreSpec
from cache.storage.folder_lock import storage_time
from cache.storage.paths import StoragePath, total_size
from pipeline.checks.consistency import check_index, check_store, check_views
from pipeline.checks.finding import Finding
from pipeline.console import size
from pipeline.project.params import Params
from pipeline.project.paths import SPLITS, Paths
from pipeline.runners.dask_cluster import connect, cores, local_workers
from stages.devices import resolve_device
from stages.errors import ConfigError
from stages.extract.plan import recipe_for

_LEDGER_BYTES = 4096  # a file of the ledger takes a block of the disk


def examine(params: Params, paths: Paths, *, device: str, scheduler: str | None) -> Iterator[Finding]:
    """Yield what was found of device, weights, data, stores, disk and, if one is named, the cluster."""
    yield from _device(params, device)
    recipe: Recipe | None = None
    try:
        recipe = recipe_for(params.extract, None, params.seeds.views)
        yield Finding("weights", "ok", f"{recipe.backbone}, SHA-256 {recipe.weights_id[:16]}")
    except PlacecacheError as fault:
        yield Finding.of("weights", fault)
    rows: dict[str, int] = {}
    for split in ("database", "queries"):
        yield from check_index(params, paths, split, rows)
    yield from check_views(paths, rows)
    if recipe is not None:
        for split in SPLITS:
            yield from check_store(params, paths, split, rows)
        yield _disk(paths, recipe, rows)
    if scheduler is not None:
        yield from _cluster(scheduler, paths, device)


def needed_bytes(rows: int, recipe: Recipe) -> int:
    """Return what a store of that many rows takes on the disk: all outputs, identities and ledger."""
    spec = StoreSpec.for_rows(rows, recipe.outputs, recipe.dtype)
    features = spec.chunks * spec.chunk_rows * spec.row_bytes
    return features + 8 * rows + spec.chunks * _LEDGER_BYTES


def _device(params: Params, device: str) -> Iterator[Finding]:
    import torch

    try:
        device = resolve_device(device)
    except ConfigError as fault:
        yield Finding.of("device", fault)
        return
    if not device.startswith("cuda"):
        threads = params.extract.threads if params.extract.threads != "auto" else torch.get_num_threads()
        text = f"{device}, {threads} of {cores()} cores, no GPU that PyTorch can use"
        if Path("/proc/driver/nvidia/version").exists() and not torch.cuda.is_available():
            yield Finding(
                "device",
                "note",
                f"{text}, though this machine has one",
                "install a CUDA build of PyTorch: https://pytorch.org/get-started",
            )
        else:
            yield Finding("device", "note", text, "a GPU is many times faster")
        return
    count = torch.cuda.device_count()
    gpu = torch.cuda.get_device_properties(device)
    text = f"{device}, {gpu.name}, {size(gpu.total_memory)}, {count} on this machine"
    faster = params.extract.precision == "float32" and torch.cuda.is_bf16_supported()
    yield Finding(
        "device",
        "note" if faster else "ok",
        text + (", computing in float32" if faster else ""),
        "extract.precision: bfloat16 is several times faster here" if faster else "",
    )


def _disk(paths: Paths, recipe: Recipe, rows: dict[str, int]) -> Finding:
    """Return what features still need against what is free where they go; object storage has no end."""
    folder = paths.features("database").parent
    needed = sum(needed_bytes(count, recipe) for count in rows.values())
    have = sum(total_size(paths.features(split)) for split in rows)
    text = f"features take {size(needed)}, {size(have)} are there"
    present = folder.nearest_folder()
    if present is None:
        return _storage(folder, text)
    free = shutil.disk_usage(present).free
    left, text = max(0, needed - have), f"{text}, {size(free)} free in {present}"
    if left > free:
        return Finding("disk", "blocks", text, f"free {size(left - free)}, or set data.features elsewhere")
    return Finding("disk", "ok", text)


def _storage(folder: StoragePath, text: str) -> Finding:
    """Return whether objects can be written, read and deleted where features go."""
    try:
        storage_time(folder)
    except PlacecacheError as fault:
        return Finding.of("storage", fault)
    return Finding("storage", "ok", f"{text}, {folder} can be written")


def _cluster(scheduler: str, paths: Paths, device: str) -> Iterator[Finding]:
    """Yield whether a cluster answers, and whether its workers see the project's files."""
    try:
        workers = local_workers(scheduler)
        if workers is not None:
            mark: Literal["ok", "note"] = "ok" if workers <= cores() or device != "cpu" else "note"
            remedy = "" if mark == "ok" else f"--scheduler local:{cores()}"
            yield Finding("cluster", mark, f"{workers} workers here, on {cores()} cores", remedy)
            return
        with connect(scheduler) as client:
            features = paths.features("database").parent.parent
            seen = client.run(_sees, paths.index("database").absolute(), features)
    except PlacecacheError as fault:
        yield Finding.of("cluster", fault)
        return
    blind = [address for address, sees in seen.items() if not sees]
    if not seen:
        remedy = f"dask worker {scheduler} --nthreads 1"
        yield Finding("cluster", "blocks", f"{scheduler} answers, but has no workers", remedy)
    elif blind:
        text = f"{len(blind)} of {len(seen)} workers do not see {features}, such as {blind[0]}"
        yield Finding("cluster", "blocks", text, "put the project on storage that all machines share")
    else:
        yield Finding("cluster", "ok", f"{len(seen)} workers at {scheduler} see {features}")


def _sees(manifest: Path, features: StoragePath) -> bool:
    """Whether this machine sees the project, and features that lie elsewhere; run on workers."""
    return features.reachable() and manifest.parent.is_dir()
