"""Find problems before a long extraction starts, each with the command or setting that fixes it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cache.errors import PlacecacheError
from cache.recipe import Recipe
from cache.spec import StoreSpec
from cache.storage.folder_lock import storage_time
from cache.storage.paths import StoragePath, total_size
from pipeline.checks.bounds import bounds
from pipeline.checks.consistency import check_import, check_index, check_store, check_views
from pipeline.checks.finding import Finding
from pipeline.console import duration, size
from pipeline.project.params import Params
from pipeline.project.paths import SPLITS, Paths
from pipeline.runners.dask_cluster import connect, cores, local_workers
from stages.devices import resolve_device
from stages.errors import ConfigError
from stages.extract.plan import recipe_for

_LEDGER_BYTES = 4096  # a ledger file takes one block of the disk


@dataclass(frozen=True)
class Workload:
    """A planned extraction: images and views, those of the project if 0, and images per second if known."""

    images: int = 0
    rate: float = 0.0


def examine(
    params: Params, paths: Paths, *, device: str, scheduler: str | None, workload: Workload | None = None
) -> Iterator[Finding]:
    """Check device, weights, data, stores, disk and, if a scheduler is named, the cluster."""
    yield from _device(params, device)
    if params.extract.imported is None:
        yield from _photos(params, paths, workload or Workload())
    else:
        yield from check_import(params, paths)
    try:
        yield from bounds(paths, params.eval.radius_m)
    except PlacecacheError as fault:
        yield Finding.of("result", fault)
    if scheduler is not None:
        yield from _cluster(scheduler, paths, device)


def _photos(params: Params, paths: Paths, workload: Workload) -> Iterator[Finding]:
    """Check weights, data, stores and disk of a project on photos, and say how long extraction takes."""
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
        rows = {"database": workload.images} if workload.images else rows
        disk = _disk(paths, recipe, rows)
        yield replace(disk, mark="note") if workload.images and disk.blocks else disk
    if workload.rate and sum(rows.values()):
        text = f"{sum(rows.values()):,} images and views at {workload.rate:,g} a second take"
        yield Finding("time", "ok", f"{text} {duration(sum(rows.values()) / workload.rate)}")


def needed_bytes(rows: int, recipe: Recipe) -> int:
    """Return the disk space of a store: all outputs, row ids and ledger."""
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
        text = f"{device}, {threads} of {cores()} cores, no GPU usable by PyTorch"
        if Path("/proc/driver/nvidia/version").exists() and not torch.cuda.is_available():
            yield Finding(
                "device",
                "note",
                f"{text}, although this machine has one",
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
        "set extract.precision: bfloat16, which is several times faster on this GPU" if faster else "",
    )


def _disk(paths: Paths, recipe: Recipe, rows: dict[str, int]) -> Finding:
    """Compare the space that features still need with the free space; object storage has no limit."""
    folder = paths.features("database").parent
    needed = sum(needed_bytes(count, recipe) for count in rows.values())
    have = sum(total_size(paths.features(split)) for split in rows)
    text = f"features take {size(needed)}, of which {size(have)} exist"
    present = folder.nearest_folder()
    if present is None:
        return _storage(folder, text)
    free = shutil.disk_usage(present).free
    left, text = max(0, needed - have), f"{text}, {size(free)} free in {present}"
    if left > free:
        return Finding("disk", "blocks", text, f"free {size(left - free)}, or move data.features")
    return Finding("disk", "ok", text)


def _storage(folder: StoragePath, text: str) -> Finding:
    """Check that objects can be written, read and deleted where features go."""
    try:
        storage_time(folder)
    except PlacecacheError as fault:
        return Finding.of("storage", fault)
    return Finding("storage", "ok", f"{text}, {folder} is writable")


def _cluster(scheduler: str, paths: Paths, device: str) -> Iterator[Finding]:
    """Check that a cluster answers and its workers can read the project's files."""
    try:
        workers = local_workers(scheduler)
        if workers is not None:
            mark: Literal["ok", "note"] = "ok" if workers <= cores() or device != "cpu" else "note"
            remedy = "" if mark == "ok" else f"use --scheduler local:{cores()}"
            yield Finding("cluster", mark, f"{workers} workers on this machine with {cores()} cores", remedy)
            return
        with connect(scheduler) as client:
            features = paths.features("database").parent.parent
            access = client.run(_can_read, paths.index("database").absolute(), features)
    except PlacecacheError as fault:
        yield Finding.of("cluster", fault)
        return
    without_access = [address for address, can_read in access.items() if not can_read]
    if not access:
        remedy = f"run `dask worker {scheduler} --nthreads 1`"
        yield Finding("cluster", "blocks", f"{scheduler} answers, but has no workers", remedy)
    elif without_access:
        count = f"{len(without_access)} of {len(access)}"
        text = f"{count} workers cannot read {features}, such as {without_access[0]}"
        yield Finding("cluster", "blocks", text, "put the project on storage that all machines share")
    else:
        yield Finding("cluster", "ok", f"{len(access)} workers at {scheduler} can read {features}")


def _can_read(manifest: Path, features: StoragePath) -> bool:
    """Whether this machine can read the project and the features; runs on workers."""
    return features.reachable() and manifest.parent.is_dir()
