"""Every stage on a disk that fails at its k-th operation: one line, nothing torn, the same bytes afterwards.

PLACECACHE_DISK_FAULTS is the number of faults per stage, drawn with a seed, or `all`.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.project.init import set_params, template
from tests.support.failing_disk import FAULTS, FailingDisk, Outcome, compile_disk
from tests.support.tiny_photos import content, draw

SETTINGS = {
    "partition.max_views": 1,
    "partition.min_images_per_class": 2,
    "extract.backbone": "efficientnet_lite0",
    "extract.image_size": 32,
    "extract.readers": 1,
    "extract.shards": 2,
    "train.epochs": 1.0,
    "train.embedding_dim": 8,
    "train.validation.times": 2,
    "eval.bootstrap": 10,
    "pack.images_per_shard": 16,
}
STEPS = {
    "index": "--project {0}/project index",
    "partition": "--project {0}/project partition",
    "extract": "--project {0}/project extract --replace --device cpu",
    "train-heads": "--project {0}/project train-heads --device cpu",
    "eval": "--project {0}/project eval --device cpu",
    "report": "--project {0}/project report",
    "pack": "--project {0}/project pack {1}/database {0}/pack --workers 1",
    "export .h5": "--project {0}/project export features {0}/out.h5 --split queries",
    "export .npy": "--project {0}/project export features {0}/out.npy --split queries",
    "export folder": "--project {0}/project export features {0}/out --split queries",
    "export pairs": "--project {0}/project export pairs {0}/pairs.txt --device cpu",
    "export positions": "--project {0}/project export positions {0}/positions.txt --split queries",
    "import": "--project {0}/other import features {0}/mine.npy {0}/mine.csv --split database --name mine"
    " --replace",
}
SAMPLES = os.environ.get("PLACECACHE_DISK_FAULTS", "1")


def draw_photos(folder: Path, seed: int, database: int, queries: int) -> None:
    """Draw photos named as those of SF-XL, on few cells."""
    generator = np.random.default_rng(seed)
    for split, count in (("database", database), ("queries", queries)):
        shutil.rmtree(folder / split, ignore_errors=True)
        for number in range(count):
            east, north = 550_000 + generator.uniform(0, 25, 2)[0], 4_180_000 + generator.uniform(0, 25)
            name = f"@{east:010.2f}@{north:010.2f}@10@S@@@p{number}@@{number * 12 % 360}@@@@201311@@.jpg"
            draw(folder / split / name, [seed, number, count])


def write_features(folder: Path, seed: int, rows: int) -> None:
    """Write features of another program, and positions."""
    np.save(folder / "mine.npy", np.random.default_rng(seed).normal(size=(rows, 8)))
    lines = [f"{row}.jpg,{550_000 + row},{4_180_000 + row},10S" for row in range(rows)]
    (folder / "mine.csv").write_text("\n".join(["path,utm_east,utm_north,zone", *lines]) + "\n")


# Speeds, which differ between runs, and temporary files that could not be deleted.
VARYING = re.compile(r"timings\.jsonl$|samples_per_s\.tsv$|/\.\.[^/]+\.partial$")
# These, temporary files, which the next run deletes, and checkpoints.
UNSTABLE = re.compile(rf"{VARYING.pattern}|(^|/)\.|\.partial/|checkpoints/")


@dataclass
class Case:
    """A step, the files before it, and the files after it on a sound disk."""

    arguments: list[str]
    before: Path
    after: dict[str, bytes]
    undisturbed: Outcome


class Bench:
    """Folders in which every step ran twice: first from nothing, then after its inputs changed."""

    def __init__(self, disk: FailingDisk, folder: Path) -> None:
        self.disk, self.work, self.saved = disk, disk.folder, folder / "saved"
        self.cases: dict[tuple[str, str], Case] = {}
        for project in ("project", "other"):
            (self.work / project).mkdir(parents=True)
            shutil.copyfile(template("params.yaml"), self.work / project / "params.yaml")
        for time, seed in (("first", 1), ("again", 2)):
            photos = folder / f"{time} photos"
            sources = {f"data.{split}": str(photos / split) for split in ("database", "queries")}
            draw_photos(photos, seed, 36 + seed, 6)
            write_features(self.work, seed, 20 + seed)
            set_params(self.work / "project" / "params.yaml", SETTINGS | sources | {"seeds.train": seed})
            shutil.rmtree(self.work / "out", ignore_errors=True)
            for step, command in STEPS.items():
                before = shutil.copytree(self.work, self.saved / f"{time} {step}")
                arguments = [word.format(self.work, photos) for word in command.split()]
                outcome = disk.run(*arguments)
                assert outcome.code == 0, outcome
                self.cases[step, time] = Case(arguments, before, self.content(), outcome)

    def check(self, step: str, time: str, error: int, at: int) -> None:
        """Let one operation of a step fail, then run it again on a sound disk."""
        case = self.cases[step, time]
        shutil.rmtree(self.work)
        shutil.copytree(case.before, self.work)
        before = self.content()
        outcome = self.disk.run(*case.arguments, error=error, at=at)
        files = self.content()
        if outcome.code == 0:
            assert differing(files, case.after) == [], outcome
            return
        assert outcome.code == 1, outcome
        assert outcome.err.startswith("error: "), outcome
        assert outcome.err.count("\n") == 1, outcome
        assert str(self.work) in outcome.err, outcome
        torn = [name for name in files if files[name] not in (before.get(name), case.after.get(name))]
        assert [name for name in torn if not UNSTABLE.search(name)] == [], outcome
        again = self.disk.run(*case.arguments)
        assert again.code == 0, (outcome, again)
        assert differing(self.content(), case.after) == [], outcome

    def content(self) -> dict[str, bytes]:
        return content(self.work)


def differing(files: dict[str, bytes], others: dict[str, bytes]) -> list[str]:
    names = sorted(files.keys() | others.keys())
    return [name for name in names if files.get(name) != others.get(name) and not VARYING.search(name)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    if not shutil.which("gcc") or sys.platform != "linux":
        pytest.skip("needs gcc and Linux")
    folder = tmp_path_factory.mktemp("disk")
    disk = FailingDisk(compile_disk(folder), folder / "work")
    try:
        yield Bench(disk, folder)
    finally:
        disk.close()


@pytest.mark.parametrize("step", STEPS)
def test_a_failing_disk_tears_nothing(bench: Bench, step: str) -> None:
    faults = [
        (time, error, at)
        for time in ("first", "again")
        for error in FAULTS
        for at in range(1, bench.cases[step, time].undisturbed.operations(error) + 1)
    ]
    if SAMPLES != "all":
        faults = random.Random(step).sample(faults, min(int(SAMPLES), len(faults)))
    for time, error, at in faults:
        bench.check(step, time, error, at)
