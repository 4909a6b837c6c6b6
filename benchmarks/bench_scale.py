"""What a project of tens of millions of images costs before and after the backbone: time and memory.

Writes a list of SF-XL-like names and runs the program itself on it, each command in a process of its own:
index, partition, extraction of one shard (small drawn images through EfficientNet-Lite0 at 32 px, extra:
lite0), status and verify. Then every other chunk is marked as done, with files of zeros that take no space,
so that `extract` and `status` meet the whole store.

    python benchmarks/bench_scale.py --rows 1000000
    python benchmarks/bench_scale.py --rows 10000 100000 1000000 10000000 --plots docs/images
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import tempfile
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from bench_index import write_list
from measure import machine, pipeline
from PIL import Image

from cache.spec import StoreSpec
from cache.store import open_store
from pipeline.project.init import set_params, template
from pipeline.project.paths import Paths
from stages.eval.plots.curves import Curve
from stages.eval.plots.figure import SERIES, plot
from stages.index.manifest import Manifest
from stages.partition.views import ViewPlan

PICTURES = 32
EXTRACT = ("extract", "--device", "cpu", "--split")
GROWTH = ("index", "partition", "extract, nothing left", "status")


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
            "extract.outputs": ["avg"],
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


def run(folder, *words, name="", codes=(0,)):
    """Run one command of the program; print and return what it took."""
    ran = pipeline(folder, *words, codes=codes)
    print(f"{name or ' '.join(words):56} {ran}", flush=True)
    return ran


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
    """Run the program on that many rows; return what the commands of GROWTH took."""
    paths = Paths(folder, "efficientnet_lite0-32")
    lay_out(folder, rows)
    growth = [run(folder, "index"), run(folder, "partition")]
    manifest = Manifest.open(paths.index("database"))
    size = StoreSpec.for_rows(rows, {"avg": 1280}, "float16").chunk_rows
    draw(folder, manifest.keys(0, min(size, rows)))
    run(folder, *EXTRACT, "database", "--shards", "0")
    plan = ViewPlan.load(paths.partition / "views.parquet")
    draw(folder, manifest.keys(0, int(plan.row[min(size, len(plan)) - 1]) + 1))
    del plan
    for name in ("extract views, one shard", "the same, nothing left"):
        run(folder, *EXTRACT, "views", "--shards", "0", name=name)
    run(folder, "verify", "--split", "database", codes=(0, 1))  # 1: chunks are missing
    mark_rest(paths.features("database"))
    run(folder, *EXTRACT, "database", name="extract, the pictures that show no city")
    growth.append(run(folder, *EXTRACT, "database", name=GROWTH[2]))
    return [*growth, run(folder, "status")]


def draw_growth(folder, growth):
    """Draw CPU time and peak memory of commands over the number of rows."""
    for name, title, scale, value_of in (
        ("growth-time", "CPU time in seconds", "log", lambda ran: ran.cpu_s),
        ("growth-memory", "Peak memory in GB", "linear", lambda ran: ran.peak_gb),
    ):
        rows = tuple((count, *map(value_of, found)) for count, found in growth.items())
        curve = Curve(("rows", *GROWTH), rows)
        print(title, *curve.columns, sep="\t")
        for row in rows:
            print(*(f"{value:,.3g}" for value in row), sep="\t")

        def lines(axes, curve=curve, scale=scale):
            for command, colour in zip(GROWTH, SERIES, strict=True):
                axes.plot(curve.numbers("rows"), curve.numbers(command), "o-", color=colour, label=command)
            axes.set(xlabel="images", xscale="log", yscale=scale)
            bottom, top = axes.get_ylim()
            axes.set_ylim(*((bottom, 12 * top) if scale == "log" else (0, 1.7 * top)))  # room for the legend
            axes.minorticks_off()
            axes.yaxis.set_major_formatter("{x:g}")
            axes.legend(loc="upper left", ncols=2, columnspacing=1)

        figure = plot(curve, name, title, "", lines)
        if figure is not None:
            figure.save_png(folder)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--folder", type=Path, help="where to write and leave everything")
    parser.add_argument("--plots", type=Path, help="existing folder for growth-time.png and -memory.png")
    options = parser.parse_args()
    print(machine("pyarrow", "torch"))
    growth = {}
    with contextlib.ExitStack() as stack:
        home = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for rows in options.rows:
            print(f"\n{rows:,} rows")
            folder = home.resolve() / str(rows)
            folder.mkdir(parents=True, exist_ok=True)
            growth[rows] = measure(folder, rows)
    if options.plots:
        draw_growth(options.plots, growth)


if __name__ == "__main__":
    main()
