"""What a project of tens of millions of images costs before and after the backbone: time and memory.

Writes a list of SF-XL-like names and runs the program itself on it, each command in a process of its
own: index, partition, extraction of a sample of shards (small images that do exist, put through the
small backbone at 32 px, whose weights come with the extra [lite0]), status and verify. Then every
other chunk is marked as done, with files of zeros that take no space, so that ledger and status are
met at full size.

    python benchmarks/bench_scale.py --rows 1000000
    python benchmarks/bench_scale.py --rows 41200000 --folder /big/disk
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from bench_index import machine, write_list
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cache.spec import StoreSpec
from cache.store import open_store
from pipeline.project.init import set_params, template
from pipeline.project.paths import Paths
from stages.index.manifest import Manifest
from stages.partition.views import ViewPlan

ROOT = Path(__file__).resolve().parent.parent
PICTURES = 32
# A process of its own for each command, which tells its peak memory at the end, in kB.
PROGRAM = """
from pathlib import Path
from pipeline.cli import main
try:
    main()
finally:
    print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


def lay_out(folder, rows):
    """Write the names and a project around them; an existing list of names is used again."""
    names = folder / "names.txt"
    if not names.exists():
        write_list(names, rows, padded=True)
    with names.open("rb") as file:
        (folder / "queries.txt").write_bytes(b"".join(itertools.islice(file, 1000)))
    params = folder / "params.yaml"
    params.write_bytes(template("params.yaml").read_bytes())
    chunks = StoreSpec.for_rows(rows, {"avg": 1280}, "float16").chunks
    set_params(
        params,
        {
            "data.database": str(names),
            "data.queries": str(folder / "queries.txt"),
            "augment.side": 64,
            "extract.backbone": "efficientnet_lite0",
            "extract.weights": "pretrained",
            "extract.image_size": 32,
            "extract.shards": chunks,  # a shard is a chunk
        },
    )


def draw(folder, keys):
    """Give the keys images: links to a few drawn ones."""
    pictures = [folder / f"{number}.jpg" for number in range(PICTURES)]
    rng = np.random.default_rng(0)
    for picture in pictures:
        if not picture.exists():
            pixels = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((12, 12, 1))).astype(np.uint8)
            Image.fromarray(pixels).save(picture)
    for key, picture in zip(keys, itertools.cycle(pictures), strict=False):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.link(picture, path)


def run(folder, *words):
    """Run one command of the program; print its time, its peak memory and its last line."""
    command = [sys.executable, "-c", PROGRAM, "--project", str(folder), *words]
    begun = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall_s = time.perf_counter() - begun
    busy_s = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    peak_kb = done.stdout.split()[-1]
    if done.returncode and words[0] != "verify":  # which says so when chunks are missing
        raise SystemExit(done.stdout + done.stderr)
    took = f"{wall_s:7.1f} s, processor {busy_s:7.1f} s, peak {int(peak_kb) / 1e6:5.2f} GB"
    print(f"{' '.join(words):56} {took}", flush=True)


@lru_cache
def crc32_of_zeros(size):
    return zlib.crc32(bytes(size))


def mark_rest(path):
    """Mark every chunk that is missing as done, its features zeros on no disk space."""
    store = open_store(path)
    ((name, length),) = store.spec.outputs.items()
    size = store.spec.chunk_rows * length * 2
    for chunk in store.ledger.missing().tolist():
        file = store.chunk_file(name, chunk)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as zeros:
            zeros.truncate(size)
        rows = store.spec.chunk_slice(chunk)
        store.ledger.mark(chunk, {name: crc32_of_zeros((rows.stop - rows.start) * length * 2)}, ())
    print(f"{store.spec.chunks:,} chunks marked as done")


def measure(folder, rows):
    paths = Paths(folder, "efficientnet_lite0-32")
    lay_out(folder, rows)
    run(folder, "index")
    run(folder, "partition")
    manifest = Manifest.open(paths.index("database"))
    size = StoreSpec.for_rows(rows, {"avg": 1280}, "float16").chunk_rows
    draw(folder, manifest.keys(0, size))
    database = ("extract", "--split", "database", "--device", "cpu", "--shards", "0")
    run(folder, *database)
    run(folder, *database)
    plan = ViewPlan.load(paths.partition / "views.parquet")
    draw(folder, manifest.keys(0, int(plan.row[min(size, len(plan)) - 1]) + 1))
    del plan
    views = ("extract", "--split", "views", "--device", "cpu", "--shards", "0")
    run(folder, *views)
    run(folder, *views)
    run(folder, "status")
    run(folder, "verify", "--split", "database")
    mark_rest(paths.features("database"))
    run(folder, "status")
    run(folder, "extract", "--split", "database", "--device", "cpu")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where to write and leave everything")
    options = parser.parse_args()
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}; {options.rows:,} rows")
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        measure(folder.resolve(), options.rows)


if __name__ == "__main__":
    main()
