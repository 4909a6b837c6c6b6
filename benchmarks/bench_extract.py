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
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the program does

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

ROOT = Path(__file__).resolve().parent.parent


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


def busy_ms(work, items, repeat, *arguments):
    """Processor milliseconds of this thread per item, one number per repetition."""
    taken = []
    for _ in range(repeat + 1):
        begun = time.thread_time()
        for item in items:
            work(item, *arguments)
        taken.append((time.thread_time() - begun) / len(items) * 1e3)
    return taken[1:]


def show(name, values, unit, floor=None):
    spread = f"{min(values):.3g}..{max(values):.3g}, n={len(values)}"
    line = f"{name:44} {np.median(values):7.3g} {unit} ({spread})"
    if floor is not None:
        line += f", {np.median(np.array(values) / np.array(floor)):.2f} x the floor"
    print(line)


def measure_decoding(manifest, repeat, params):
    preprocess = preprocess_for("efficientnet_lite0", 224)
    paths = [manifest.image_path(key) for key in manifest.keys(0, manifest.rows)]
    for name, chosen in (("exact", preprocess), ("scaled", preprocess.decoding_scaled())):
        resize, least = chosen.resize, chosen.decode_at_least
        floor = busy_ms(by_hand, paths, repeat, resize, 224, least)
        show(f"{name}: decode and resize by hand (floor)", floor, "ms")
        ours = busy_ms(decoded, paths, repeat, chosen)
        show(f"{name}: the decode path", ours, "ms", floor)
    pictures = [read_image(path, decode_at_least=preprocess.decode_at_least) for path in paths[:16]]
    for side in (448, 256):
        config = replace(params.augment, side=side)
        views = busy_ms(
            lambda numbered, config: preprocess(
                augment(numbered[1], key=str(numbered[0]), view=0, seed=0, config=config)
            ),
            list(enumerate(pictures)),
            repeat,
            config,
        )
        show(f"a view of side {side}, decoded already", views, "ms")


def decoded(path, preprocess):
    return preprocess(read_image(path, decode_at_least=preprocess.decode_at_least))


def rates(source, repeat):
    """Images a second of reading the encoded bytes, one number per repetition."""
    places = source.locations(0, source.manifest.rows)
    taken = []
    for _ in range(repeat + 1):
        begun = time.perf_counter()
        for place in places:
            source.content(place)
        taken.append(len(places) / (time.perf_counter() - begun))
    return taken[1:]


def measure_packs(manifest, folder, repeat, params):
    config = replace(params.pack, side=0)
    begun = time.perf_counter()
    result = pack(PackInputs(config, manifest.path, folder, workers=1))
    speed = result.size / 1e6 / (time.perf_counter() - begun)
    print(f"packing unchanged, 1 process: {speed:.0f} MB/s, every image decoded once to check it")
    loose = rates(ImageSource(manifest), repeat)
    show("loose files, page cache warm (floor)", loose, "images/s")
    packed = rates(ImageSource(Manifest.open(result.manifest)), repeat)
    print(f"{'the pack':44} {np.median(packed):7.0f} images/s, {np.median(packed) / np.median(loose):.1f} x")


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


def seconds_of(work, *arguments):
    """Seconds that passed and seconds of processor time of all threads."""
    begun, begun_cpu = time.perf_counter(), time.process_time()
    work(*arguments)
    return time.perf_counter() - begun, time.process_time() - begun_cpu


def forward(backbone, batches, threads):
    torch.set_num_threads(threads)
    for batch in batches:
        backbone(batch)


def extract_seconds(config, manifest, store):
    taken = []

    def mapper(function, orders):
        for order in orders:
            backbone_for(config, "cpu", order.weights_id)  # loading is not what is measured
            taken.append(seconds_of(lambda order=order: results.append(function(order))))
            yield results.pop()

    results = []
    run(ExtractInputs(config, RowSource(manifest), store, range(config.shards), device="cpu"), mapper=mapper)
    return np.sum(taken, axis=0)


def measure_line(manifest, folder, repeat, params):
    cores = os.cpu_count() or 1
    config = replace(params.extract, backbone="efficientnet_lite0", image_size=224, shards=1, batch_size=16)
    backbone = backbone_for(config, "cpu", stage_weights(config))
    preprocess = backbone.preprocess
    paths = [manifest.image_path(key) for key in manifest.keys(0, manifest.rows)]
    batches = torch.from_numpy(np.stack([decoded(path, preprocess) for path in paths])).split(
        config.batch_size
    )
    forward(backbone, batches[:1], cores)
    choices = [(threads, decode) for decode in ("exact", "scaled") for threads in (1, cores)]
    floors, taken = [], {choice: [] for choice in choices}
    for turn in range(repeat):
        # On a busy machine more threads may be slower: the floor is the best of both.
        floors.append(np.min([seconds_of(forward, backbone, batches, count) for count in (1, cores)], axis=0))
        for threads, decode in choices:
            chosen = replace(config, threads=threads, decode=decode)
            store = folder / f"{turn}-{threads}-{decode}" / "database.zarr"
            taken[threads, decode].append(extract_seconds(chosen, manifest, store))
    for column, unit in enumerate(("s", "s of processor time")):
        floor = [row[column] for row in floors]
        show("bare forward passes, the best of 1 and all threads (floor)", floor, unit)
        for (threads, decode), rows in taken.items():
            show(f"extract, {decode}, {threads} backbone threads", [row[column] for row in rows], unit, floor)


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
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    versions = f"torch {torch.__version__}, pillow {PIL.__version__}, numpy {np.__version__}"
    print(f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {platform.system()}, {versions}")
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
