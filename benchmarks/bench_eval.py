"""How fast queries are classified and how much of exhaustive retrieval's time the hybrid takes.

- Classification over K classes in 4 groups: against one matrix product plus one top-k per group.
- Hybrid against exhaustive retrieval over a synthetic store of float16 features.

    python benchmarks/bench_eval.py --classes 300000 --rows 2800000 --folder /tmp
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cache.reader import FeatureReader
from cache.recipe import Recipe
from cache.row_identity import RowIdentities
from cache.spec import StoreSpec
from cache.store import create_or_open
from cache.writer import ChunkWriter
from stages.eval.config import HybridConfig
from stages.eval.localisers.cell_index import CellIndex
from stages.eval.localisers.hybrid import Hybrid
from stages.eval.localisers.retrieval import PhotoSpace, nearest_photos
from stages.models.heads.heads import HeadSettings
from stages.models.localiser.calibration import Calibration
from stages.models.localiser.cell_fusion import FusionConfig
from stages.models.localiser.exemplars import Exemplars
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.scoring import best_scores
from stages.partition.classes import ClassTable
from stages.partition.grid import centres, group_of

CELL_M = 10.0
FUSION = FusionConfig(
    candidates=32, edge_m=5.0, covered=0.7, temperature=0.1, likeness=8.0, abstain_cost=0.02
)
HYBRID = HybridConfig(cells=10, neighbours=1, photos=64, temperature=0.08, prior_weight=0.5)


def compared(works, queries, repeat):
    """Return the median CPU seconds of each piece of work, done in turns so that all meet the same load."""
    seconds = {name: [] for name in works}
    for turn in range(repeat + 1):
        for name, work in works.items():
            clock, cpu = time.perf_counter(), time.thread_time()
            work()
            if turn:
                seconds[name].append((time.thread_time() - cpu, time.perf_counter() - clock))
    medians = {}
    for name, pairs in seconds.items():
        cpu, clock = np.array(pairs).T
        medians[name] = median = np.median(cpu)
        spread = f"({cpu.min():.3f} .. {cpu.max():.3f})"
        each, clock = 1000 * median / queries, np.median(clock)
        print(f"{name:34s} {median:8.3f} s {spread:18s} {each:8.3f} ms a query, clock {clock:.3f} s")
    return medians


def square_of_classes(count):
    """Return a table of about `count` cells in a square, so that every cell has neighbours."""
    side = int(count**0.5)
    cell = np.stack(np.divmod(np.arange(side * side), side), axis=1).astype(np.int64) + 50_000
    group = group_of(cell, 2)
    order = np.lexsort((cell[:, 1], cell[:, 0], group))
    cell, group = cell[order], group[order]
    number = len(cell)
    return ClassTable(
        group=group.astype(np.int32),
        index=(np.arange(number) - np.searchsorted(group, group)).astype(np.int32),
        p=cell[:, 0],
        q=cell[:, 1],
        centres=centres(cell, CELL_M),
        images=np.full(number, 9),
        bucket=np.full(number, "mid"),
        p_aug=np.zeros(number, np.float32),
        cell_m=CELL_M,
        groups_per_side=2,
        zone="10S",
    )


def make_localiser(classes, length):
    recipe = Recipe("bench", "random", "0" * 64, 224, {}, {"avg": length}, "float16", "float32")
    localiser = Localiser.new(classes, recipe, ("avg",), length, HeadSettings("aamc", 100.0, 0.2, False))
    return localiser.freeze()


def bench_classify(localiser, queries, repeat):
    features = torch.randn(queries, localiser.meta["features"])
    units = [unit.T for unit in localiser._units]
    plain = Calibration.configured(4, FUSION)
    embedded = localiser.embed(features)
    widest = max(unit.shape[1] for unit in units)
    step = max(1, (1 << 24) // widest)

    def floor():
        for start in range(0, queries, step):
            for unit in units:
                (embedded[start : start + step] @ unit).topk(FUSION.candidates, dim=1)

    def products():
        for start in range(0, queries, step):
            for unit in units:
                embedded[start : start + step] @ unit

    exemplars = torch.randn(len(localiser.classes), 2, features.shape[1], dtype=torch.float16)
    alike = Exemplars(exemplars, torch.zeros(features.shape[1]))
    ids, _ = best_scores(localiser, features, FUSION.candidates, "calibrated", plain)
    works = {
        "matrix products alone": products,
        "matrix products and top-k": floor,
        "classification": lambda: best_scores(localiser, features, FUSION.candidates, "calibrated", plain),
        "likeness to exemplars, 2 a class": lambda: alike.compare(features, ids),
    }
    alone, least, whole, _ = compared(works, queries, repeat).values()
    print(f"ratio to products and top-k {whole / least:.3f}, to products alone {whole / alone:.3f}\n")


def write_store(path, rows, length, classes, recipe, seed=0):
    """Write unit-like features and return positions; rows follow each other along the streets' cells."""
    spec = StoreSpec.for_rows(rows, {"avg": length}, "float16")
    random = np.random.default_rng(seed)
    store = create_or_open(path, spec, recipe, RowIdentities.of(np.arange(rows, dtype=np.uint64)))
    writer = ChunkWriter(store)
    block = random.standard_normal((spec.chunk_rows, length), dtype=np.float32).astype(np.float16)
    for chunk in range(spec.chunks):
        part = spec.chunk_slice(chunk)
        # The same numbers in another order: the products cost what they cost, writing them little.
        writer.write(chunk, {"avg": np.roll(block, chunk, axis=1)[: part.stop - part.start]}, {})
    place = np.sort(random.integers(len(classes), size=rows))
    return classes.centres[place] + random.uniform(-CELL_M / 2, CELL_M / 2, (rows, 2))


def bench_hybrid(localiser, rows, queries, repeat, folder):
    length = localiser.meta["features"]
    with tempfile.TemporaryDirectory(dir=folder) as name:
        path = Path(name) / "database.zarr"
        positions = write_store(path, rows, length, localiser.classes, localiser.recipe)
        reader = FeatureReader.open(path)
        space = PhotoSpace(localiser, "frozen")
        begun = time.perf_counter()
        index = CellIndex.build(reader, positions, space, CELL_M, Path(name))
        print(f"index of {index.nbytes / 1e9:.2f} GB built in {time.perf_counter() - begun:.1f} s")
        hybrid = Hybrid(space, index, HYBRID, FUSION, 25.0)
        features = np.random.default_rng(1).standard_normal((queries, length)).astype(np.float16)
        vectors = space.vectors(features)
        works = {
            "exhaustive retrieval": lambda: nearest_photos(vectors, reader, space, 20),
            "hybrid, answers included": lambda: hybrid.locate(features, 20),
        }
        full, part = compared(works, queries, repeat).values()
        print(f"hybrid takes {100 * part / full:.2f} % of exhaustive retrieval")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--classes", type=int, default=300_000)
    parser.add_argument("--rows", type=int, default=2_800_000)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)  # so that the thread's CPU time is all there is
    versions = f"python {platform.python_version()}, torch {torch.__version__}"
    print(f"{platform.machine()}, 1 thread, {versions}")
    classes = square_of_classes(options.classes)
    localiser = make_localiser(classes, options.length)
    print(f"{len(classes):,} classes, {options.queries} queries, D {options.length}, n {options.repeat}")
    bench_classify(localiser, options.queries, options.repeat)
    print(f"{options.rows:,} rows of {options.length} float16")
    bench_hybrid(localiser, options.rows, options.queries, options.repeat, options.folder)


if __name__ == "__main__":
    main()
