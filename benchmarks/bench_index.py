"""How fast images are indexed and partitioned, and in how much memory.

Writes a list of SF-XL-like names (a long-tailed city of about 170 km2), then measures

- a plain Python loop that splits each name on "@" (up to a million of the names),
- the reading of names alone, on one thread and on all cores, the whole index stage, and the partition stage.

    python benchmarks/bench_index.py --rows 1000000 --repeat 3
    python benchmarks/bench_index.py --rows 41200000 --folder /big/disk
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.project.params import load_params
from stages.index import stage as index
from stages.index.sources.text_list import blocks, parse_lines, read_list
from stages.partition import stage as partition

ROOT = Path(__file__).resolve().parent.parent
BLOCK_ROWS = 500_000
PANO = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", np.uint8)


def spots(rng, count):
    """Return places of panoramas: along streets every 100 m, and as unevenly visited as SF-XL's cells."""
    along, across = rng.uniform(0, 13_000, count), rng.integers(0, 130, count) * 100 + rng.normal(0, 3, count)
    turned = rng.random(count) < 0.5
    return np.where(turned, along, across) + 540_000, np.where(turned, across, along) + 4_173_000


def write_list(path, rows, *, padded, seed=0):
    """Write the names; unpadded ones vary in length."""
    rng = np.random.default_rng(seed)
    east, north = spots(rng, max(rows // 60, 1))
    weight = rng.lognormal(0, 1.2, len(east))
    cumulative = np.cumsum(weight / weight.sum())
    with path.open("w", buffering=1 << 24) as file:
        for first in range(0, rows, BLOCK_ROWS):
            count = min(BLOCK_ROWS, rows - first)
            spot = np.searchsorted(cumulative, rng.random(count)).clip(max=len(east) - 1)
            e, n = east[spot] + rng.normal(0, 2, count), north[spot] + rng.normal(0, 2, count)
            heading = rng.integers(0, 12, count) * 30
            month = rng.integers(1, 13, count)
            pano = PANO[rng.integers(0, 64, (count, 22))].tobytes().decode()
            style = "03d" if padded else "d"
            file.writelines(
                f"train/37.{s % 80:02d}/@{x:010.2f}@{y:010.2f}@10@S@037.{s % 99999:05d}@-122.{s % 77777:05d}"
                f"@{pano[22 * i : 22 * i + 22]}@@{h:{style}}@@@@2013{m:02d}@@.jpg\n"
                for i, (s, x, y, h, m) in enumerate(
                    zip(spot.tolist(), e.tolist(), n.tolist(), heading.tolist(), month.tolist(), strict=True)
                )
            )


def plain_loop(path, limit):
    """Read the same five facts of each name as the index does, the plain way."""
    with path.open() as file:
        names = [line.rstrip("\n") for line, _ in zip(file, range(limit), strict=False)]
    start = clocks()
    east, north, zone, heading, stamp = [], [], [], [], []
    for name in names:
        fields = name.split("@")
        east.append(float(fields[1]))
        north.append(float(fields[2]))
        zone.append(fields[3] + fields[4])
        heading.append(float(fields[9]))
        stamp.append(fields[13])
    np.array(east), np.array(north), np.array(heading)
    return since(start, len(names))


def read_names(path, rows):
    """Read the list and its names without writing anything."""
    start = clocks()
    if sum(len(batch) for batch, _ in read_list(path)) != rows:
        raise SystemExit("rows were lost")
    return since(start, rows)


def read_names_alone(path, rows):
    """Read the list and its names in this thread alone."""
    start = clocks()
    spare, read = [], 0
    for buffer, text, _ in blocks(path, spare):
        read += len(parse_lines(text))
        spare.append(buffer)
    if read != rows:
        raise SystemExit("rows were lost")
    return since(start, rows)


def clocks():
    """Return wall-clock and processor seconds; on a busy machine only the second tells the work done."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return np.array([time.perf_counter(), used.ru_utime + used.ru_stime])


def since(start, rows):
    """Return wall-clock and processor seconds per million rows since `start`."""
    return (clocks() - start) / rows * 1e6


def peak_memory_gb():
    """Return the most memory this process has held; getrusage's figure would include its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def in_own_process(stage, folder, rows):
    """Run one stage in a process of its own; return its seconds, its peak memory in GB and what it said."""
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder), "--rows", str(rows)]
    *numbers, said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\t")
    wall_s, busy_s, peak_gb, idle_gb = map(float, numbers)
    return np.array([wall_s, busy_s]), f"peak {peak_gb:.2f} GB, {idle_gb:.2f} of it imports; {said.strip()}"


def run_stage(stage, folder, rows):
    params = load_params(ROOT / "params.yaml")
    manifest = folder / "manifest.parquet"
    idle_gb = peak_memory_gb()
    start = clocks()
    if stage == "index":
        result = index.run(index.IndexInputs(params.index, (folder / "names.txt",), manifest, "database"))
        said = f"{result.rows:,} rows, zone {result.zone}"
    else:
        result = partition.run(partition.PartitionInputs(params.partition, manifest, folder / "partition", 0))
        said = (
            f"{result.classes:,} classes, {result.images_in_classes:,} images in them, tail up to "
            f"{result.tail_count}, {result.views:,} views ({result.views_per_image:.2f} an image)"
        )
    print(*since(start, rows), peak_memory_gb(), idle_gb, said, sep="\t")


def show(name, times, loop, further=""):
    wall_s, busy_s = np.median(times, axis=0)
    spread = f"{np.min(times, axis=0)[0]:.3f}..{np.max(times, axis=0)[0]:.3f}, n={len(times)}"
    faster = f"{loop[0] / wall_s:.1f} x by the clock, {loop[1] / busy_s:.1f} x in processor time"
    print(f"{name:17} {wall_s:.3f} s per million ({spread}), processor {busy_s:.3f} s; {faster}; {further}")


def machine():
    versions = f"python {platform.python_version()}, numpy {np.__version__}, pyarrow {pa.__version__}"
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    return f"{cpu or platform.processor()}, {pa.cpu_count()} cores, {platform.system()}; {versions}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--unpadded", action="store_true", help="names of different lengths")
    parser.add_argument("--stage", choices=("index", "partition"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        run_stage(options.stage, options.folder, options.rows)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        measure(Path(name), options.rows, options.repeat, padded=not options.unpadded)


def measure(folder, rows, repeat, *, padded):
    print(machine())
    path = folder / "names.txt"
    write_list(path, rows, padded=padded)
    layout = "of one length" if padded else "of several lengths"
    print(f"{rows:,} names {layout}, {path.stat().st_size / 1e6:,.0f} MB")
    loops = [plain_loop(path, min(rows, 1_000_000)) for _ in range(repeat)]
    loop = np.median(loops, axis=0)
    show("plain split loop", loops, loop)
    show("names, 1 thread", [read_names_alone(path, rows) for _ in range(repeat)], loop)
    show("names, all cores", [read_names(path, rows) for _ in range(repeat)], loop)
    for stage in ("index", "partition"):
        times, said = zip(*(in_own_process(stage, folder, rows) for _ in range(repeat)), strict=True)
        show(f"{stage} stage", times, loop, said[-1])
    size = (folder / "manifest.parquet").stat().st_size
    print(f"manifest {size / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
