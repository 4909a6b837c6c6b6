"""How fast features are written and read, against plain memory-mapped files in the same run.

Every read touches all bytes, block by block, with the page cache warm; the floor copies blocks out of
a np.memmap. Every write is forced to the disk chunk by chunk; the floor copies chunks into a np.memmap
and flushes it after each.

    python benchmarks/bench_cache.py --rows 262144 --length 384 --repeat 7
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cache.reader import FeatureReader
from cache.recipe import Recipe
from cache.row_identity import RowIdentities, row_ids
from cache.spec import StoreSpec
from cache.store import create_or_open
from cache.writer import ChunkWriter


def make_store(path, rows, outputs):
    spec = StoreSpec.for_rows(rows, outputs, "float16")
    recipe = Recipe("none", "random", "0" * 64, 0, {}, outputs, "float16", "float32")
    return create_or_open(path, spec, recipe, RowIdentities.of(row_ids(map(str, range(rows)))))


def chunks_of(store, features):
    """Yield (chunk, its rows, its features per output)."""
    for chunk in range(store.spec.chunks):
        rows = store.spec.chunk_slice(chunk)
        column, arrays = 0, {}
        for name, length in store.spec.outputs.items():
            arrays[name] = features[: rows.stop - rows.start, column : column + length]
            column += length
        yield chunk, rows, arrays


def timed(work, *arguments):
    begun = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - begun


def write_store(store, features):
    writer = ChunkWriter(store)
    for chunk, _, arrays in chunks_of(store, features):
        writer.write(chunk, arrays)


def write_memmap(path, store, features):
    mapped = np.memmap(path, np.float16, "w+", shape=(store.spec.rows, features.shape[1]))
    for _, rows, _ in chunks_of(store, features):
        mapped[rows] = features[: rows.stop - rows.start]
        mapped.flush()


def write_files(folder, store, features):
    """The least that an atomic write of a file per chunk can do."""
    folder.mkdir()
    for chunk, rows, _ in chunks_of(store, features):
        partial = folder / f"{chunk}.partial"
        with partial.open("wb") as file:
            file.write(features[: rows.stop - rows.start].data)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(folder / str(chunk))


def read_store(reader):
    for start, stop in reader.blocks():
        reader.read(start, stop)


def read_zarr(reader, arrays):
    for start, stop in reader.blocks():
        for array in arrays:
            array[start:stop]


def read_memmap(path, reader, length):
    mapped = np.memmap(path, np.float16, "r", shape=(reader.rows, length))
    for start, stop in reader.blocks():
        np.array(mapped[start:stop])


def show(name, seconds, megabytes, floors):
    median = float(np.median(seconds))
    # Ratios of neighbours in time, so that a busy moment weighs on both alike.
    ratio = float(np.median(np.array(floors) / np.array(seconds)))
    spread = f"{min(seconds):.3f}..{max(seconds):.3f} s, n={len(seconds)}"
    print(f"{name:34} {megabytes / median:7.0f} MB/s ({spread}), {ratio:.2f} x the floor's speed")


def measure(folder, rows, outputs, repeat):
    length = sum(outputs.values())
    megabytes = rows * length * 2 / 1e6
    rng = np.random.default_rng(0)
    features = rng.normal(size=(8192, length)).astype(np.float16)
    times = {name: [] for name in ("memmap", "files", "write", "memmap read", "read", "zarr")}
    for number in range(repeat):
        store = make_store(folder / f"{number}.zarr", rows, outputs)
        times["memmap"].append(timed(write_memmap, folder / f"{number}.bin", store, features))
        times["files"].append(timed(write_files, folder / f"{number}.files", store, features))
        times["write"].append(timed(write_store, store, features))
    reader = FeatureReader.open(folder / "0.zarr")
    arrays = [reader.store.array(name) for name in outputs]
    for turn in range(repeat + 1):  # the first turn warms the page cache
        taken = (
            ("memmap read", timed(read_memmap, folder / "0.bin", reader, length)),
            ("read", timed(read_store, reader)),
            ("zarr", timed(read_zarr, reader, arrays)),
        )
        for name, seconds in taken if turn else ():
            times[name].append(seconds)
    words = " + ".join(f"{name} {length}" for name, length in outputs.items())
    print(f"{rows:,} rows of {words} float16, {megabytes:,.0f} MB, {store.spec.chunks} chunks")
    show("write: memmap, flushed (floor)", times["memmap"], megabytes, times["memmap"])
    show("write: a file per chunk, synced", times["files"], megabytes, times["memmap"])
    show("write: ChunkWriter", times["write"], megabytes, times["memmap"])
    show("read: memmap, copied (floor)", times["memmap read"], megabytes, times["memmap read"])
    show("read: FeatureReader", times["read"], megabytes, times["memmap read"])
    show("read: zarr alone", times["zarr"], megabytes, times["memmap read"])


def machine():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    versions = f"python {platform.python_version()}, numpy {np.__version__}, zarr {zarr.__version__}"
    return f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {platform.system()}, {versions}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=262_144)
    parser.add_argument("--length", type=int, default=384)
    parser.add_argument("--outputs", type=int, default=1, choices=(1, 2))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: a temporary folder)")
    options = parser.parse_args()
    print(machine())
    outputs = dict.fromkeys(("cls", "avg")[: options.outputs], options.length)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        measure(Path(name), options.rows, outputs, options.repeat)


if __name__ == "__main__":
    main()
