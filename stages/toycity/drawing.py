"""Draw a whole city into a folder: plan, render in parallel, put in place in one move."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from stages.errors import InputError
from stages.files import Progress
from stages.toycity.config import CityConfig, CityResult
from stages.toycity.render import Renderer
from stages.toycity.streets import City, lay_out
from stages.toycity.visits import OUTSIDE_M, Shot, plan_visits

DRAWING = 2
"""Version of the drawing: raise it whenever the same config would give other pictures."""
_BATCH = 24
_CELL_M = 10.0


def draw(
    config: CityConfig, folder: Path, *, workers: int | None = None, progress: Progress | None = None
) -> CityResult:
    """The toy city in `folder`: database/*.jpg, queries/*.jpg and city.json.

    A folder that already holds this very city is left alone; another city in it is replaced as a whole.

    Parameters
    ----------
    config : CityConfig
    folder : Path
        Made if missing.
    workers : int, optional
        Processes; all cores by default. The pictures do not depend on it.
    progress : callable, optional
        Called with (images drawn, images in all).

    Raises
    ------
    InputError
        If the folder holds something that is no toy city.
    """
    found = _drawn_before(config, folder)
    if found is not None:
        return found
    _refuse_strangers(folder)
    city = lay_out(config.images, config.seed)
    shots = _noted(plan_visits(city, config), config)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    for kind in ("database", "queries"):
        (part / kind).mkdir(parents=True)
    _draw_all(city, config.image_px, shots, part, workers or os.cpu_count() or 1, progress)
    result = _summary(shots)
    text = json.dumps({"drawing": DRAWING, "config": asdict(config), **result.counts()}, indent=2)
    (part / "city.json").write_text(text + "\n", encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    part.rename(folder)
    return result


def _noted(shots: list[Shot], config: CityConfig) -> list[Shot]:
    """The shots with the drawing's identity as the note in their names.

    Other pictures then never go under names for which features are stored already.
    """
    drawing = repr((DRAWING, sorted(asdict(config).items()))).encode()
    note = hashlib.blake2b(drawing, digest_size=4).hexdigest()
    return [replace(shot, path=shot.path.removesuffix("@.jpg") + f"{note}@.jpg") for shot in shots]


def _refuse_strangers(folder: Path) -> None:
    """Raise if the folder holds files that no drawing has put there: they would be deleted."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "city.json").is_file():
        raise InputError(
            f"{folder} holds files but no city.json, expected an empty folder or a toy city: move them away"
        )


def _drawn_before(config: CityConfig, folder: Path) -> CityResult | None:
    """The result of an earlier drawing, if the folder holds it whole."""
    try:
        record: dict[str, Any] = json.loads((folder / "city.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if record.get("drawing") != DRAWING or record.get("config") != asdict(config):
        return None
    for kind in ("database", "queries"):
        if not (folder / kind).is_dir() or sum(1 for _ in (folder / kind).glob("*.jpg")) != record[kind]:
            return None
    least, median, most = record["images_per_cell"]
    return CityResult(
        record["database"], record["queries"], record["queries_outside"], record["cells"],
        (least, median, most), record["images_per_street"], redrawn=False,
    )  # fmt: skip


def _draw_all(
    city: City, image_px: int, shots: list[Shot], part: Path, workers: int, progress: Progress | None
) -> None:
    # Neighbours together: a worker then draws few facades for many shots.
    ordered = sorted(shots, key=lambda shot: (shot.street, shot.day, shot.number))
    batches = [ordered[i : i + _BATCH] for i in range(0, len(ordered), _BATCH)]
    done = 0
    for count in _run(city, image_px, batches, part, min(workers, len(batches))):
        done += count
        if progress is not None:
            progress(done, len(shots))


def _run(city: City, image_px: int, batches: list[list[Shot]], part: Path, workers: int) -> Iterator[int]:
    """Images drawn, batch by batch, in this process or in spawned ones."""
    if workers == 1:
        _start(city, image_px)
        for batch in batches:
            yield _draw_batch(batch, part)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (city, image_px)) as pool:
        for future in as_completed([pool.submit(_draw_batch, batch, part) for batch in batches]):
            yield future.result()


_renderers: list[Renderer] = []


def _start(city: City, image_px: int) -> None:
    """Give this process its renderer."""
    _renderers[:] = [Renderer(city, image_px)]


def _draw_batch(batch: list[Shot], part: Path) -> int:
    for shot in batch:
        (part / shot.path).write_bytes(_renderers[0].photo(shot))
    return len(batch)


def _summary(shots: list[Shot]) -> CityResult:
    database = np.array([shot.utm for shot in shots if not shot.query])
    queries = np.array([shot.utm for shot in shots if shot.query])
    nearest = np.hypot(*(queries[:, None] - database[None]).transpose(2, 0, 1)).min(axis=1)
    _, counts = np.unique(np.floor(database / _CELL_M), axis=0, return_counts=True)
    streets = Counter(shot.street for shot in shots if not shot.query)
    return CityResult(
        database=len(database),
        queries=len(queries),
        queries_outside=int((nearest > OUTSIDE_M).sum()),
        cells=len(counts),
        images_per_cell=(int(counts.min()), int(np.median(counts)), int(counts.max())),
        images_per_street=dict(streets.most_common()),
        redrawn=True,
    )
