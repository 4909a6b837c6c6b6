"""This project beside other programs that do the same work, in the same run, with the answers compared.

- Exhaustive search over float16 features in a store, against faiss IndexFlatIP over float32 in memory; search
  over class weights; and the two inexact searches, faiss IVF and this project's hybrid, with their recall.
- `pipeline extract` against plain_extract.py: timm, DataLoader and np.save. EfficientNet-Lite0, real weights.

Other peers are in other scripts: D&C's training step in bench_train.py, zarr and np.memmap in bench_cache.py.

    pip install '.[bench]'
    python benchmarks/bench_peers.py --threads 1 --photos my-photos/
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench_eval import FUSION, HYBRID, make_localiser
from bench_extract import draw
from measure import Times, machine, pipeline, require_answer, run_command, show, take_turns
from synthetic import CELL_M, filled_store, square_of_classes
from torch.nn import functional

from cache.reader import FeatureReader
from pipeline.project.init import set_params, template
from pipeline.project.paths import Paths
from stages.eval.localisers.cell_index import CellIndex
from stages.eval.localisers.hybrid import Hybrid
from stages.eval.localisers.retrieval import PhotoSpace, nearest_photos
from stages.models.backbones.create import load_model
from stages.models.localiser.scoring import best_scores

# The OpenBLAS in faiss's wheel knows no recent processors and takes its slowest kernels there.
AVX512 = "avx512f" in Path("/proc/cpuinfo").read_text()
os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX" if AVX512 else "Haswell")
import faiss  # noqa: E402

LENGTH, FOUND, BEST_CLASSES = 512, 20, 32
SPREAD = 0.04
"""Deviation of each component from the class, a unit vector: photos of a class have cosines of 0.55."""
ROUNDING = 1e-5
"""Cosines nearer than this may change places."""
LISTS, PROBES = 1024, (4, 16, 64)


def photos_of_classes(rows, classes):
    """Return unit centres of the classes, the class of each row, and what gives the features of a slice."""
    random = np.random.default_rng(0)
    centre = functional.normalize(torch.randn(classes, LENGTH, generator=torch.Generator().manual_seed(0)))
    label = random.integers(classes, size=rows)

    def features_of(part):
        noise = np.random.default_rng(part.start).standard_normal(
            (part.stop - part.start, LENGTH), np.float32
        )
        return (centre.numpy()[label[part]] + SPREAD * noise).astype(np.float16)

    return centre, label, features_of


def require_same_neighbours(found, similarity, expected, expected_similarity, what):
    difference = float(np.abs(similarity - expected_similarity).max())
    require_answer(difference < ROUNDING, f"{what}: cosines differ by {difference:.1e}")
    # A row may stand elsewhere only among rows that are as similar.
    other = found != expected
    gaps = np.abs(np.diff(expected_similarity, axis=1, append=-1.0))
    tied = (gaps < ROUNDING) | (np.roll(gaps, 1, axis=1) < ROUNDING)
    require_answer(not (other & ~tied).any(), f"{what}: {(other & ~tied).sum()} answers differ")
    order = f"{other.sum()} in another order, cosines within {difference:.0e}"
    print(f"\n{what}: {found.size:,} equal answers, {order}")


def recall(found, expected):
    """Return the share of queries whose most similar photo was found."""
    return (found == expected[:, :1]).any(axis=1).mean()


def search(rows, classes, queries, repeat, folder):
    """Search the photos and the class weights with both programs."""
    table = square_of_classes(classes, 2)
    centre, label, features_of = photos_of_classes(rows, len(table))
    localiser = make_localiser(table, LENGTH)
    reader = filled_store(folder / "database.zarr", rows, {"avg": LENGTH}, features_of)
    space = PhotoSpace(localiser, "frozen")
    vectors = space.vectors(reader.read(0, rows))
    flat = faiss.IndexFlatIP(LENGTH)
    flat.add(vectors.numpy())
    chosen = np.random.default_rng(1).integers(rows, size=queries)
    noise = SPREAD * torch.randn(queries, LENGTH, generator=torch.Generator().manual_seed(1))
    features = (centre[label[chosen]] + noise).half().numpy()
    asked = space.vectors(features)
    exact = search_photos(asked, reader, space, flat, repeat)
    search_classes(localiser, features, repeat)
    positions = table.centres[label] + np.random.default_rng(2).uniform(-CELL_M / 2, CELL_M / 2, (rows, 2))
    with torch.no_grad():  # as after training: a class's weights are near its photos
        for group, head in enumerate(localiser.heads):
            head.prototypes.copy_(localiser.embed(centre[table.group_slice(group)]))
    localiser.freeze()
    hybrid = Hybrid(space, CellIndex.build(reader, positions, space, CELL_M, folder), HYBRID, FUSION, 25.0)
    search_inexactly(features, asked, hybrid, vectors, exact, repeat)


def search_photos(asked, reader, space, flat, repeat):
    """Compare exhaustive searches of all queries at once and of few; return the rows found."""
    ours = nearest_photos(asked, reader, space, FOUND)
    cosines, rows = flat.search(asked.numpy(), FOUND)
    require_same_neighbours(ours.rows, ours.similarity, rows, cosines, "exhaustive search")
    # For queries x length below 128,000, faiss compares query by query instead of by matrix products.
    for count in (len(asked), 32, 1):
        some = asked[:count]
        queries = some.numpy()
        works = {
            "faiss IndexFlatIP, float32 in memory (peer)": partial(flat.search, queries, FOUND),
            "this project, float16 in a store": partial(nearest_photos, some, reader, space, FOUND),
        }
        title = f"exhaustive search, {reader.rows:,} x {LENGTH}, {count} queries at once, per query"
        show(title, take_turns(works, repeat), items=count)
    return rows


def search_classes(localiser, features, repeat):
    with torch.no_grad():
        weights = torch.cat([functional.normalize(head.prototypes) for head in localiser.heads]).numpy()
        embedded = localiser.embed(features).numpy()
    flat = faiss.IndexFlatIP(LENGTH)
    flat.add(weights)
    localiser.freeze()
    score = (BEST_CLASSES, "cosine", None)
    ids, scores = best_scores(localiser, features, *score)
    expected_scores, expected = flat.search(embedded, BEST_CLASSES)
    require_same_neighbours(ids, scores, expected, expected_scores, "class weights")
    works = {
        "faiss IndexFlatIP (peer)": partial(flat.search, embedded, BEST_CLASSES),
        "this project, projection included": partial(best_scores, localiser, features, *score),
    }
    title = f"{BEST_CLASSES} best of {len(weights):,} classes, {len(features)} queries at once, per query"
    show(title, take_turns(works, repeat), items=len(features))


def search_inexactly(features, asked, hybrid, vectors, exact, repeat):
    """Compare times and recall of the most similar photo."""
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(LENGTH), LENGTH, LISTS, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 5
    index.train(vectors[: 39 * LISTS].numpy())
    index.add(vectors.numpy())

    def probe(count):
        index.nprobe = count
        return index.search(asked.numpy(), FOUND)[1]

    print()
    works = {}
    for count in PROBES:
        name = f"faiss IVF, {count} of {LISTS:,} lists (peer)"
        works[name] = lambda count=count: probe(count)
        print(f"{name}: recall@1 {recall(probe(count)[:, :1], exact):.2f}")
    works["this project, hybrid"] = lambda: hybrid.rank(features)
    found = recall(hybrid.rank(features)[0], exact)
    print(f"this project, hybrid: the most similar photo is among its {HYBRID.photos} in {found:.2f}")
    title = f"inexact search, {len(vectors):,} x {LENGTH}, {len(asked)} queries at once, per query"
    show(title, take_turns(works, repeat), items=len(asked))


def extract(photos, count, side, repeat, folder):
    """Compare whole programs, imports included, on one core and on all."""
    project, output, weights = folder / "project", folder / "peer.npy", folder / "weights.pth"
    names = make_project(project, photos, count, side)
    torch.save(load_model("efficientnet_lite0", "pretrained", 224).state_dict(), weights)
    plain = [sys.executable, Path(__file__).with_name("plain_extract.py"), names, weights, output]
    command = ("extract", "--split", "database", "--device", "cpu")
    rows = len(names.read_text().splitlines())
    cores = sorted(os.sched_getaffinity(0))
    for some in (cores[:1], cores):
        works = {
            "timm, DataLoader, np.save (peer)": lambda some=some: run_command(plain, cores=some),
            "pipeline extract": lambda some=some: pipeline(project, *command, cores=some),
        }
        times = {name: Times() for name in works}
        for _ in range(repeat):
            shutil.rmtree(project / "data" / "features", ignore_errors=True)
            for name, work in works.items():
                ran = work()
                times[name].elapsed.append(ran.elapsed_s)
                times[name].cpu.append(ran.cpu_s)
        title = f"features of {rows} photos, whole programs, imports included, {len(some)} cores, per photo"
        show(title, times, items=rows)
    reader = FeatureReader.open(Paths(project, "efficientnet_lite0-224").features("database"))
    require_similar_features(reader.read(0, rows), np.load(output))


def make_project(project, photos, count, side):
    """Index photos, or drawn ones, as a project's database; return the list of their paths, in this order."""
    folder = project / "photos"
    folder.mkdir(parents=True)
    if photos is None:
        draw(folder, count, side)
    for path in sorted(photos.rglob("*.jpg"))[:count] if photos else ():
        shutil.copyfile(path, folder / path.name)
    paths = sorted(folder.glob("*.jpg"))
    table = project / "photos.csv"
    rows = [f"photos/{path.name},{550_000 + 10 * number},4180000,10S" for number, path in enumerate(paths)]
    table.write_text("\n".join(["path,utm_east,utm_north,zone", *rows]) + "\n")
    params = project / "params.yaml"
    params.write_bytes(template("params.yaml").read_bytes())
    settings = {"backbone": "efficientnet_lite0", "outputs": ["avg"], "image_size": 224}
    set_params(
        params,
        {"data.database": str(table), "data.queries": str(table)}
        | {f"extract.{name}": value for name, value in settings.items()},
    )
    pipeline(project, "index")
    names = project / "names.txt"
    names.write_text("".join(f"{path}\n" for path in paths))
    return names


def require_similar_features(ours, theirs):
    """Photos are decoded and resized by other code, so features are similar, not equal."""
    ours, theirs = ours.astype(np.float32), theirs.astype(np.float32)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosine, difference = (ours * theirs).sum(axis=1) / lengths, np.abs(ours - theirs).max()
    words = f"cosine {np.median(cosine):.4f} (least {cosine.min():.4f}), greatest difference {difference:.2g}"
    print(f"features: {words}")
    require_answer(np.median(cosine) > 0.99, f"features differ from timm's: {words}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--classes", type=int, default=59_536)
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--photos", type=Path, help="folder of JPEGs (default: drawn ones)")
    parser.add_argument(
        "--count", type=int, default=192, help="of photos; from 200 on, extract also makes a background"
    )
    parser.add_argument("--side", type=int, default=512, help="of drawn photos, pixels")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the searches")
    parser.add_argument("--only", choices=("search", "extract"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    print(f"{machine('torch', 'faiss-cpu', 'timm')}, {options.threads} threads")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only != "extract":
            search(options.rows, options.classes, options.queries, options.repeat, folder)
        if options.only != "search":
            extract(options.photos, options.count, options.side, options.repeat, folder)


if __name__ == "__main__":
    main()
