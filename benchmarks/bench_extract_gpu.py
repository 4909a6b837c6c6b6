"""Extraction on a GPU against the bare model on the same GPU, with images out of packs.

For each backbone: the model alone, then `extract` as a user runs it, decoding by Pillow in processes
and by nvJPEG on the GPU, over packs of two kinds of images. A few hundred drawn JPEGs stand for many:
each is packed many times over. Rates are of the last three quarters of a run, when everything is under
way; the seconds before them (processes, compilation) are named beside. A shard begins with nobody having read
ahead, and a small store's chunks are short: runs as short as this one show it more than a city does, so the
rate between two batches in the middle (the median) and what the longest pauses cost are printed too.

    python benchmarks/bench_extract_gpu.py --images 32768 --backbones dinov2_vitb14,dinov2_vits14
    python benchmarks/bench_extract_gpu.py --images 49152 --shards 1 --sides 512 --decoders nvjpeg \\
        --backbones dinov2_vitb14
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import torch
from bench_extract import ROOT, draw
from torch.utils.flop_counter import FlopCounterMode

from cache.timings import total_timings
from pipeline.project.params import load_params
from stages.extract.plan import RowSource
from stages.extract.stage import ExtractInputs, run
from stages.index.manifest import Manifest
from stages.index.manifest_writer import write_manifest
from stages.index.packs.stage import PackInputs
from stages.index.packs.stage import run as pack
from stages.models.backbones.backbone import load_backbone

PEAK_BF16 = 989e12  # dense, of an H100 SXM
DISTINCT = 256


def packed(folder, images, side, params):
    """Return the manifest of a pack of that many images, `DISTINCT` of them different."""
    folder.mkdir()
    drawn = draw(folder, DISTINCT, side)
    names = drawn.keys(0, DISTINCT)
    keys = [f"{number:07d}.jpg" for number in range(images)]
    (folder / "all").mkdir()
    for number, key in enumerate(keys):
        os.link(folder / names[number % DISTINCT], folder / "all" / key)
    columns = {
        "key": keys,
        "utm_east": [float(number) for number in range(images)],
        "utm_north": [0.0] * images,
        "heading": pa.array([0.0] * images, pa.float32()),
        "timestamp": [""] * images,
    }
    batch = pa.record_batch(columns)
    path = folder / "all.parquet"
    write_manifest(path, [batch], root=folder / "all", zone="10S", source="csv")
    begun = time.perf_counter()
    workers = len(os.sched_getaffinity(0))
    result = pack(PackInputs(replace(params.pack, side=0), path, folder / "pack", workers))
    seconds = time.perf_counter() - begun
    each = result.size / images / 1e3
    print(f"pack of {images} JPEGs of {side} px, {each:.0f} kB each, {workers} workers: {seconds:.0f} s")
    return Manifest.open(result.manifest)


def alone(config, weights, batch, times=5):
    """Images a second of the model on pixels that lie on the GPU already, and its share of the peak."""
    backbone = load_backbone(
        config.backbone,
        weights=weights,
        image_size=config.image_size,
        device="cuda",
        precision=config.precision,
        compiled=config.compile,
    )
    shape = (batch, config.image_size, config.image_size, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device="cuda")
    for _ in range(4):
        backbone(pixels)
    rates = []
    for _ in range(times):
        torch.cuda.synchronize()
        begun, passes = time.perf_counter(), max(4, 8192 // batch)
        for _ in range(passes):
            backbone(pixels)
        torch.cuda.synchronize()
        rates.append(passes * batch / (time.perf_counter() - begun))
    return rates, statistics.median(rates) * operations(config, weights) / PEAK_BF16


def operations(config, weights):
    """Floating point operations of one image, attention included: on a CPU it would not be counted."""
    size = config.image_size
    plain = load_backbone(config.backbone, weights=weights, image_size=size, device="cuda")
    with FlopCounterMode(display=False) as counter:
        plain(torch.zeros((1, size, size, 3), dtype=torch.uint8))
    return counter.get_total_flops()


def extracted(config, manifest, store):
    """Images a second of the last three quarters of a run, seconds before them, its pauses and its result."""
    marks = [(0, time.perf_counter())]
    inputs = ExtractInputs(config, RowSource(manifest), store, range(config.shards), device="cuda")
    result = run(inputs, progress=lambda done, total: marks.append((done, time.perf_counter())))
    total = marks[-1][0]
    first = next(mark for mark in marks if mark[0] >= total / 4)
    rate = (total - first[0]) / (marks[-1][1] - first[1])
    steps = [later[1] - sooner[1] for sooner, later in itertools.pairwise(marks) if sooner[0] >= first[0]]
    return rate, first[1] - marks[0][1], steps, result


def pauses(steps, options):
    """What the seconds between batches say: the rate in the middle, and what the longest ones cost."""
    middle, longest = statistics.median(steps), sorted(steps)[-2 * options.shards :]
    lost = sum(longest) - len(longest) * middle
    rate = f"median step {options.batch / middle:,.0f} images/s"
    return f"{rate}, {len(longest)} longest cost {lost:.2f} of {sum(steps):.2f} s"


def waits(store):
    """Seconds that the backbone waited for images and for the writer."""
    total = total_timings(store)
    images, writer = total["read_wait_s"], total["write_wait_s"]
    return f"waited in all {images:.1f} s for images and their readers, {writer:.1f} s for the writer"


def compare(name, manifests, options, params, folder):
    config = replace(
        params.extract,
        backbone=name,
        weights="random",
        precision="bfloat16",
        compile=options.compile,
        batch_size=options.batch,
        shards=options.shards,
        readers=options.readers or "auto",
    )
    rates, share = alone(config, "random", options.batch)
    floor = statistics.median(rates)
    spread = f"{min(rates):,.0f} - {max(rates):,.0f}, n {len(rates)}"
    print(f"\n{name}, bfloat16, batch {options.batch}, compile {options.compile}")
    print(f"  model alone (floor)            {floor:8,.0f} images/s ({spread}), {share:.1%} of the bf16 peak")
    for (side, manifest), decoder in itertools.product(manifests.items(), options.decoders.split(",")):
        chosen = replace(config, decoder=decoder)
        store = folder / f"{name}-{side}-{decoder}" / "database.zarr"
        rate, before, steps, result = extracted(chosen, manifest, store)
        print(
            f"  {side} px pack, {decoder:8} {rate:12,.0f} images/s, {rate / floor:.2f} of it; first quarter "
            f"{before:.1f} s; read {result.read_s:.0f} s, compute {result.compute_s:.1f} s, "
            f"write {result.write_s:.1f} s, bad {len(result.bad)}",
            flush=True,
        )
        print(f"    {pauses(steps, options)}; {waits(store)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=32768)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--readers", type=int, default=0, help="0: one per core")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--sides", default="256,512", help="of the drawn JPEGs, pixels")
    parser.add_argument("--decoders", default="pillow,nvjpeg")
    parser.add_argument("--backbones", default="dinov2_vitb14,dinov2_vits14")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{torch.cuda.get_device_name()}, {cores} CPU cores, torch {torch.__version__}")
    params = load_params(ROOT / "params.yaml")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides = [int(side) for side in options.sides.split(",")]
        manifests = {side: packed(folder / str(side), options.images, side, params) for side in sides}
        for backbone in options.backbones.split(","):
            compare(backbone, manifests, options, params, folder)


if __name__ == "__main__":
    main()
