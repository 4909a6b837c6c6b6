"""How fast queries are classified and how much of exhaustive retrieval's time the hybrid takes.

- Classification over K classes in 4 groups: against one matrix product plus one top-k per group.
- Exhaustive retrieval over a synthetic store of float16 features against one matrix product per block; hybrid
  against exhaustive retrieval.

    python benchmarks/bench_eval.py --classes 300000 --rows 2800000 --folder /tmp
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measure import machine, show, take_turns
from synthetic import CELL_M, filled_store, recipe_of, square_of_classes

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

FUSION = FusionConfig(
    candidates=32, edge_m=5.0, covered=0.7, temperature=0.1, likeness=8.0, abstain_cost=0.02
)
HYBRID = HybridConfig(cells=10, neighbours=1, photos=64, temperature=0.08, prior_weight=0.5)


def make_localiser(classes, length):
    head = HeadSettings("aamc", 100.0, 0.2, easy_margin=False)
    localiser = Localiser.new(classes, recipe_of({"avg": length}), ("avg",), length, head)
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
    classify = partial(best_scores, localiser, features, FUSION.candidates, "calibrated", plain)
    works = {
        "matrix products and top-k (floor)": floor,
        "matrix products alone": products,
        "classify": classify,
        "similarity to exemplars, 2 per class": lambda: alike.compare(features, ids),
    }
    title = f"{len(localiser.classes):,} classes x {features.shape[1]}, {queries} queries, per query"
    show(title, take_turns(works, repeat), items=queries, goals={"classify": 1.2})


def bench_hybrid(localiser, rows, queries, repeat, folder):
    length, classes = localiser.meta["features"], localiser.classes
    random = np.random.default_rng(0)
    block = random.standard_normal((8192, length), dtype=np.float32).astype(np.float16)
    place = np.sort(random.integers(len(classes), size=rows))
    positions = classes.centres[place] + random.uniform(-CELL_M / 2, CELL_M / 2, (rows, 2))
    with tempfile.TemporaryDirectory(dir=folder) as name:
        # The same numbers in another order: products take as long, and drawing them is quick.
        reader = filled_store(
            Path(name) / "database.zarr",
            rows,
            {"avg": length},
            lambda part: np.roll(block, part.start, axis=1)[: part.stop - part.start],
        )
        space = PhotoSpace(localiser, "frozen")
        started = time.perf_counter()
        index = CellIndex.build(reader, positions, space, CELL_M, Path(name))
        print(f"\nindex of {index.nbytes / 1e9:.2f} GB built in {time.perf_counter() - started:.1f} s")
        hybrid = Hybrid(space, index, HYBRID, FUSION, 25.0)
        features = np.random.default_rng(1).standard_normal((queries, length)).astype(np.float16)
        vectors = space.vectors(features)
        exhaustive = partial(nearest_photos, vectors, reader, space, 20)
        works = {
            "read, widen and multiply by block (floor)": partial(products_alone, vectors, reader),
            "exhaustive search": exhaustive,
        }
        title = f"{rows:,} photos x {length}, {queries} queries, per query"
        show(title, take_turns(works, repeat), items=queries, goals={"exhaustive search": 1.1})
        works = {"exhaustive search": exhaustive, "hybrid": partial(hybrid.locate, features, 20)}
        title += f", {len(classes):,} classes"
        show(title, take_turns(works, repeat), items=queries, goals={"hybrid": 0.05})


def products_alone(vectors, reader):
    for start, stop in reader.blocks():
        vectors @ torch.from_numpy(reader.read(start, stop)).float().T


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
    print(f"{machine('torch')}, 1 thread of PyTorch")
    classes = square_of_classes(options.classes, 2)
    localiser = make_localiser(classes, options.length)
    bench_classify(localiser, options.queries, options.repeat)
    bench_hybrid(localiser, options.rows, options.queries, options.repeat, options.folder)


if __name__ == "__main__":
    main()
