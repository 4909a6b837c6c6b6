"""How fast names of images are read, beside a plain Python loop that splits each name (the floor).

Writes a list of SF-XL-like names (a long-tailed city of about 170 km2). The loop takes up to a million names
from memory; the project reads the file, on one thread and on all cores. Whole stages: bench_scale.py.

    python benchmarks/bench_index.py --rows 1000000 --repeat 3
    python benchmarks/bench_index.py --rows 41200000 --folder /big/disk
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from measure import Times, machine, require_answer, show, take_turns

from stages.index.sources.text_list import blocks, parse_lines, read_list

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


def names_of(path, limit):
    with path.open() as file:
        return [line.rstrip("\n") for line, _ in zip(file, range(limit), strict=False)]


def plain_loop(names):
    """Read the same five facts of each name as the index does, the plain way; return the positions."""
    east, north, zone, heading, stamp = [], [], [], [], []
    for name in names:
        fields = name.split("@")
        east.append(float(fields[1]))
        north.append(float(fields[2]))
        zone.append(fields[3] + fields[4])
        heading.append(float(fields[9]))
        stamp.append(fields[13])
    np.array(heading)
    return np.array([east, north])


def read_on_all_cores(path):
    """Read the list and its names without writing anything; return the number of rows."""
    return sum(len(batch) for batch, _ in read_list(path))


def read_on_one_thread(path):
    spare, rows = [], 0
    for buffer, text, _ in blocks(path, spare):
        rows += len(parse_lines(text))
        spare.append(buffer)
    return rows


def require_same_positions(path, names):
    first, _ = next(iter(read_list(path)))
    count = min(len(first), len(names))
    difference = np.abs(first.positions[:count].T - plain_loop(names[:count])).max()
    require_answer(difference < 1e-6, f"positions differ by {difference} m from those of the loop")


def measure(path, rows, repeat):
    names = names_of(path, min(rows, 1_000_000))
    require_same_positions(path, names)
    for read in (read_on_one_thread, read_on_all_cores):
        require_answer(read(path) == rows, "rows were lost")
    works = {
        "plain split loop, names in memory (floor)": (lambda: plain_loop(names), len(names)),
        "this project, one thread": (lambda: read_on_one_thread(path), rows),
        "this project, all cores": (lambda: read_on_all_cores(path), rows),
    }
    times = take_turns({name: work for name, (work, _) in works.items()}, repeat)
    each = {  # seconds per million names
        name: Times(*(np.array(values) / works[name][1] * 1e6 for values in (found.elapsed, found.cpu)))
        for name, found in times.items()
    }
    show("read names, per million", each, goals={"this project, all cores": "0.067, 15 times as fast"})


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--unpadded", action="store_true", help="names of different lengths")
    options = parser.parse_args()
    print(machine("pyarrow"))
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        path = Path(name) / "names.txt"
        write_list(path, options.rows, padded=not options.unpadded)
        print(f"{options.rows:,} names, {path.stat().st_size / 1e6:,.0f} MB")
        measure(path, options.rows, options.repeat)


if __name__ == "__main__":
    main()
