"""How near extraction comes to its floors: bare decoding, bare forward passes, bare reads of loose files.

Draws JPEGs, then measures

- the decode path (open, decode, resize, cut), exact and scaled, against the same by hand, one thread,
  processor time,
- views at two sides, and packs against loose files,
- `extract`, exact and scaled, against the bare forward passes over the same images decoded beforehand, with
  one backbone thread and with all, optionally while other processes keep the cores busy.

    python benchmarks/bench_extract.py --images 128 --repeat 5
    python benchmarks/bench_extract.py --part decode --side 512 640 1024 3464
    python benchmarks/bench_extract.py --part line --load 2
    GOMP_SPINCOUNT=300000 python benchmarks/bench_extract.py --part line --load 2  # spinning
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from measure import ROOT, Times, each, machine, nothing, require_answer, show, take_turns

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the program does

import torch
from PIL import Image

from pipeline.project.params import load_params
from stages.extract.plan import RowSource
from stages.extract.shard import backbone_for
from stages.extract.stage import ExtractInputs, run
from stages.images.augment import augment
from stages.images.read import read_image
from stages.index.manifest import Manifest
from stages.index.manifest_writer import write_manifest
from stages.index.packs.reader import ImageSource
from stages.index.packs.stage import PackInputs
from stages.index.packs.stage import run as pack
from stages.models.backbones.card import preprocess_for


def draw(folder, count, side, seed=0):
    """Write JPEGs with as much detail as photos: about 0.3 byte a pixel."""
    random = np.random.default_rng(seed)
    keys = []
    for number in range(count):
        layers = np.zeros((side, side, 3))
        for scale in (2, 8, 32, 128):
            coarse = random.normal(size=(side // scale + 1, side // scale + 1, 3)) * scale**0.6
            layers += np.kron(coarse, np.ones((scale, scale, 1)))[:side, :side]
        picture = Image.fromarray((layers * 7 + 128).clip(0, 255).astype(np.uint8))
        keys.append(f"{number:05d}.jpg")
        picture.save(folder / keys[-1], quality=85)
    columns = {
        "key": keys,
        "utm_east": np.arange(count, dtype=np.float64),
        "utm_north": np.zeros(count),
        "heading": pa.array(np.zeros(count), pa.float32()),
        "timestamp": [""] * count,
    }
    path = folder / "list.parquet"
    return write_manifest(path, [pa.record_batch(columns)], root=folder, zone="10S", source="csv")


def by_hand(path, resize, size, least):
    image = Image.open(path)
    image.draft("RGB", (least, least))
    image = image.convert("RGB")
    short = min(image.size)
    image = image.resize(tuple(resize * side // short for side in image.size), Image.Resampling.BICUBIC)
    left = (resize - size) // 2
    return np.asarray(image.crop((left, left, left + size, left + size)))


def measure_decoding(manifest, repeat, params):
    preprocess = preprocess_for("efficientnet_lite0", 224)
    paths = [manifest.image_path(key) for key in manifest.keys(0, manifest.rows)]
    for name, chosen in (("exact", preprocess), ("scaled", preprocess.decoding_scaled())):
        sides = {"resize": chosen.resize, "size": 224, "least": chosen.decode_at_least}
        same = np.array_equal(by_hand(paths[0], **sides), decoded(paths[0], chosen))
        require_answer(same, f"decode {name}: pixels differ from those by hand")
        works = {
            "the same by hand (floor)": each(paths, partial(by_hand, **sides)),
            "this project": each(paths, partial(decoded, preprocess=chosen)),
        }
        show(f"decode {name}, resize and crop, per image", take_turns(works, repeat), items=len(paths))
    pictures = list(
        enumerate(read_image(path, decode_at_least=chosen.decode_at_least) for path in paths[:16])
    )
    works = {
        f"views of side {side}": each(pictures, partial(view, preprocess, replace(params.augment, side=side)))
        for side in (256, 448)
    }
    show("draw a view of a decoded image, per view", take_turns(works, repeat), items=len(pictures))


def view(preprocess, config, numbered):
    return preprocess(augment(numbered[1], key=str(numbered[0]), view=0, seed=0, config=config))


def decoded(path, preprocess):
    return preprocess(read_image(path, decode_at_least=preprocess.decode_at_least))


def measure_packs(manifest, folder, repeat, params):
    config = replace(params.pack, side=0)
    started = time.perf_counter()
    result = pack(PackInputs(config, manifest.path, folder, workers=1))
    speed = result.size / 1e6 / (time.perf_counter() - started)
    print(f"\npack unchanged images, 1 process: {speed:.0f} MB/s, every image decoded once to check it")
    sources = {
        "loose files (floor)": ImageSource(manifest),
        "pack": ImageSource(Manifest.open(result.manifest)),
    }
    rows = manifest.rows
    works = {name: each(source.locations(0, rows), source.content) for name, source in sources.items()}
    title = "read encoded images, page cache warm"
    show(title, take_turns(works, repeat), items=rows, rate="images/s")


@contextmanager
def load(processes):
    """Keep cores busy with other processes."""
    loops = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def forward(backbone, batches, threads):
    torch.set_num_threads(threads)
    for batch in batches:
        backbone(batch)


def extract(config, manifest, store, times):
    """Extract into a new store; add what the shards took to `times`."""

    def mapper(function, orders):
        for order in orders:
            backbone_for(config, "cpu", order.weights_id)  # loading is not what is measured
            results = []
            times.add(lambda order=order, results=results: results.append(function(order)), nothing)
            yield from results

    run(ExtractInputs(config, RowSource(manifest), store, range(config.shards), device="cpu"), mapper=mapper)


def measure_line(manifest, folder, repeat, params):
    cores = len(os.sched_getaffinity(0))
    config = replace(params.extract, backbone="efficientnet_lite0", image_size=224, shards=1, batch_size=16)
    backbone = backbone_for(config, "cpu", stage_weights(config))
    paths = [manifest.image_path(key) for key in manifest.keys(0, manifest.rows)]
    pixels = np.stack([decoded(path, backbone.preprocess) for path in paths])
    batches = torch.from_numpy(pixels).split(config.batch_size)
    forward(backbone, batches[:1], cores)
    bare = {threads: Times() for threads in (1, cores)}
    choices = {(decode, threads): Times() for decode in ("exact", "scaled") for threads in (1, cores)}
    for turn in range(repeat):
        for threads, times in bare.items():
            times.add(partial(forward, backbone, batches, threads), nothing)
        for (decode, threads), times in choices.items():
            chosen = replace(config, threads=threads, decode=decode)
            extract(chosen, manifest, folder / f"{turn}-{threads}-{decode}" / "database.zarr", times)
    # On a busy machine more threads may be slower: the floor is the best of both.
    best = (np.min([getattr(times, kind) for times in bare.values()], axis=0) for kind in ("elapsed", "cpu"))
    lines = {"bare forward passes, best of 1 and all threads (floor)": Times(*best)}
    for (decode, threads), times in choices.items():
        lines[f"extract, decode {decode}, {threads} backbone threads"] = times
    show(f"extract {len(paths)} images, per image", lines, items=len(paths))


def stage_weights(config):
    from stages.models.backbones.card import describe_backbone

    return describe_backbone(config.backbone, weights=config.weights, image_size=config.image_size).weights_id


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--side", type=int, nargs="+", default=[512], help="sides of the drawn JPEGs, pixels")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--part", choices=("decode", "pack", "line", "all"), default="all")
    parser.add_argument("--load", type=int, default=0, help="other processes that keep a core busy each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine("torch", "pillow"))
    params = load_params(ROOT / "params.yaml")
    for side in options.side:
        with tempfile.TemporaryDirectory() as name:
            measure(Path(name), side, params, options)


def measure(folder, side, params, options):
    images = max(4, options.images * 512**2 // max(side, 512) ** 2)
    manifest = draw(folder, images, side)
    size = sum(file.stat().st_size for file in folder.glob("*.jpg")) / images
    print(f"{images} JPEGs of {side} px, {size / 1e3:.0f} kB each; {options.load} processes beside it")
    with load(options.load):
        if options.part in ("decode", "all"):
            measure_decoding(manifest, options.repeat, params)
        if options.part in ("pack", "all"):
            measure_packs(manifest, folder / "pack", options.repeat, params)
        if options.part in ("line", "all"):
            measure_line(manifest, folder, options.repeat, params)


if __name__ == "__main__":
    main()
