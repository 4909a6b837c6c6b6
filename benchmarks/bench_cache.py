"""How fast features are written and read, beside np.memmap (the floor) and zarr-python in the same run.

Every write is forced to the disk chunk by chunk. Every read touches all bytes with the page cache warm: in
order, block by block, and single rows in batches of 1,024 that are drawn at random and sorted.

    python benchmarks/bench_cache.py --rows 262144 --length 384 --repeat 7
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from pathlib import Path

import numpy as np
from measure import each, machine, require_answer, show, take_turns
from synthetic import empty_store

from cache.reader import FeatureReader, gather
from cache.writer import ChunkWriter

BATCH, BATCHES = 1024, 8


def chunks_of(store, features):
    """Yield (chunk, its rows, its features per output)."""
    for chunk in range(store.spec.chunks):
        rows = store.spec.chunk_slice(chunk)
        column, arrays = 0, {}
        for name, length in store.spec.outputs.items():
            arrays[name] = features[: rows.stop - rows.start, column : column + length]
            column += length
        yield chunk, rows, arrays


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


def measure_writes(folder, rows, outputs, repeat):
    """Measure and leave `0.zarr` and `0.bin`, which hold the same features."""
    features = np.random.default_rng(0).normal(size=(8192, sum(outputs.values()))).astype(np.float16)
    stores = [empty_store(folder / f"{number}.zarr", rows, outputs) for number in range(repeat + 1)]
    numbers = [itertools.count() for _ in range(3)]

    def memmap():
        number = next(numbers[0])
        write_memmap(folder / f"{number}.bin", stores[number], features)

    def files():
        number = next(numbers[1])
        write_files(folder / f"{number}.files", stores[number], features)

    works = {
        "np.memmap, flushed after each chunk (floor)": memmap,
        "one synced file per chunk": files,
        "this project: ChunkWriter": lambda: write_store(stores[next(numbers[2])], features),
    }
    show_speeds("write", take_turns(works, repeat), rows, outputs)


def measure_reads(folder, rows, outputs, repeat):
    """Compare what three programs return, then measure."""
    reader = FeatureReader.open(folder / "0.zarr")
    arrays = [reader.store.array(name) for name in outputs]
    mapped = np.memmap(folder / "0.bin", np.float16, "r", shape=(rows, sum(outputs.values())))
    random = np.random.default_rng(1)
    batches = [np.sort(random.choice(rows, min(BATCH, rows), replace=False)) for _ in range(BATCHES)]
    in_order = {
        "np.memmap, copied (floor)": lambda block: np.array(mapped[slice(*block)]),
        "this project: FeatureReader": lambda block: reader.read(*block),
        "zarr": lambda block: joined([array[slice(*block)] for array in arrays]),
    }
    shuffled = {
        "np.memmap (floor)": lambda batch: mapped[batch],
        "this project: gather": lambda batch: gather(reader, batch),
        "zarr": lambda batch: joined([array.oindex[batch] for array in arrays]),
    }
    for title, parts, works, count in (
        ("read in order", list(reader.blocks()), in_order, rows),
        ("read rows at random", batches, shuffled, sum(map(len, batches))),
    ):
        first, *others = [work(parts[0]) for work in works.values()]
        require_answer(all(np.array_equal(first, other) for other in others), f"{title}: features differ")
        loops = {name: each(parts, work) for name, work in works.items()}
        show_speeds(title, take_turns(loops, repeat), count, outputs)


def joined(parts):
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def show_speeds(title, times, rows, outputs):
    megabytes = rows * sum(outputs.values()) * 2 / 1e6
    words = " + ".join(f"{name} {length}" for name, length in outputs.items())
    show(f"{title}: {rows:,} rows of {words} float16", times, items=megabytes, rate="MB/s")


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
    print(machine("zarr"))
    outputs = dict.fromkeys(("cls", "avg")[: options.outputs], options.length)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        measure_writes(Path(name), options.rows, outputs, options.repeat)
        measure_reads(Path(name), options.rows, outputs, options.repeat)


if __name__ == "__main__":
    main()
