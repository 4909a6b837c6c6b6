"""Draw a whole city into a folder: plan all photos, render them in parallel, replace the folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import utm
from PIL import Image

from stages.errors import InputError
from stages.files import Progress
from stages.images.worker_pool import worker_pool
from stages.toycity.camera import Camera, Darkroom, database_day, query_day
from stages.toycity.config import OUTSIDE_M, CityConfig, CityResult
from stages.toycity.sky_and_ground import Ground, Sky
from stages.toycity.street_furniture import StreetFurniture
from stages.toycity.streets import City, Shot, plan_city, plan_shots
from stages.toycity.walls import Walls

DRAWING = 2
"""Version of the drawing: raise it when the pictures of a config change."""
_KINDS = ("database", "queries")
_BATCH = 24
_CELL_M = 10.0
_OVERSAMPLE = 1.5
_UTM_ZONE, _UTM_BAND = 10, "S"


def draw(
    config: CityConfig, folder: Path, *, workers: int | None = None, progress: Progress | None = None
) -> CityResult:
    """Draw the toy city into `folder`: database/*.jpg, queries/*.jpg and city.json.

    A folder that already contains this city stays as it is. Another city in it is replaced as a whole.

    Parameters
    ----------
    config : CityConfig
    folder : Path
        Created if missing.
    workers : int, optional
        Processes, as many as cores by default. The pictures do not depend on it.
    progress : callable, optional
        Called with (images drawn, images in total).

    Raises
    ------
    InputError
        If the folder contains something else than a toy city.
    """
    earlier = _earlier_result(config, folder)
    if earlier is not None:
        return earlier
    # Replacing the folder deletes it, so it must not contain files of anyone else.
    if folder.exists() and any(folder.iterdir()) and not (folder / "city.json").is_file():
        raise InputError(
            f"{folder} contains files but no city.json, expected an empty folder or a toy city: "
            "move the files elsewhere"
        )
    city = plan_city(config.images, config.seed)
    shots = plan_shots(city, config)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    for kind in _KINDS:
        (part / kind).mkdir(parents=True)
    note = _drawing_digest(config)
    # Neighbouring shots go into one batch, so that a worker draws few facades for many shots.
    jobs = [
        (shot, part / _KINDS[shot.query] / shot_name(shot, note))
        for shot in sorted(shots, key=lambda shot: (shot.street, shot.day, shot.number))
    ]
    drawn = 0
    for count in _draw_all(city, config.image_px, jobs, workers or os.cpu_count() or 1):
        drawn += count
        if progress is not None:
            progress(drawn, len(jobs))
    result = _summary(shots)
    record = {"drawing": DRAWING, "config": asdict(config), **asdict(result)}
    del record["redrawn"]
    (part / "city.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    part.rename(folder)
    return result


def _earlier_result(config: CityConfig, folder: Path) -> CityResult | None:
    """The result of an earlier run, if the folder contains all of this city."""
    try:
        record: dict[str, Any] = json.loads((folder / "city.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if record.pop("drawing", None) != DRAWING or record.pop("config", None) != asdict(config):
        return None
    for kind in _KINDS:
        if not (folder / kind).is_dir() or sum(1 for _ in (folder / kind).glob("*.jpg")) != record[kind]:
            return None
    record["images_per_cell"] = tuple(record["images_per_cell"])
    return CityResult(**record, redrawn=False)


def _drawing_digest(config: CityConfig) -> str:
    """8 characters in every file name: features belong to a name, so another drawing needs other names."""
    drawing = repr((DRAWING, sorted(asdict(config).items())))
    return hashlib.blake2b(drawing.encode(), digest_size=4).hexdigest()


def _draw_all(city: City, image_px: int, jobs: list[tuple[Shot, Path]], workers: int) -> Iterator[int]:
    """Draw all photos, in this process or in spawned ones; yield the number of photos of each batch."""
    batches = [jobs[start : start + _BATCH] for start in range(0, len(jobs), _BATCH)]
    workers = min(workers, len(batches))
    if workers == 1:
        _start_worker(city, image_px)
        yield from map(_draw_batch, batches)
        return
    with worker_pool(workers, _start_worker, (city, image_px)) as pool:
        for future in as_completed([pool.submit(_draw_batch, batch) for batch in batches]):
            yield future.result()


_renderer: list[Renderer] = []
"""The renderer of this process; a list, because a worker can only keep it in a global."""


def _start_worker(city: City, image_px: int) -> None:
    _renderer[:] = [Renderer(city, image_px)]


def _draw_batch(batch: list[tuple[Shot, Path]]) -> int:
    for shot, path in batch:
        path.write_bytes(_renderer[0].photo(shot))
    return len(batch)


class Renderer:
    """Renders photos of one city. What it keeps between photos only saves time."""

    def __init__(self, city: City, image_px: int) -> None:
        self._side_px = round(image_px * _OVERSAMPLE)
        self._sky = Sky(city.seed)
        self._ground = Ground(city)
        self._walls = Walls(city)
        self._furniture = StreetFurniture(city)
        self._darkroom = Darkroom(image_px)

    def photo(self, shot: Shot) -> bytes:
        """The photo as JPEG bytes, a function of the shot and the city alone."""
        day = query_day(shot.day) if shot.query else database_day(shot.day)
        camera = Camera(shot.x_m, shot.y_m, shot.eye_m, shot.heading_deg, shot.fov_deg, self._side_px)
        frame = self._sky.render(camera, day, shot.day & 0xFFFF)
        self._ground.paint(frame, camera, day)
        wall_depth = self._walls.paint(frame, camera, day)
        picture = Image.fromarray(frame).convert("RGB")
        self._furniture.draw(picture, camera, day, wall_depth, shot)
        rng = np.random.default_rng((shot.day, shot.number))
        return self._darkroom.develop(picture, day, shot.tilt_deg, rng)


def shot_name(shot: Shot, note: str) -> str:
    """The file name in the format of SF-XL: the metadata of a photo between '@' signs.

    Positions are kept to the centimetre and headings to the degree.
    """
    east, north = shot.utm
    latitude, longitude = utm.to_latlon(east, north, _UTM_ZONE, _UTM_BAND)
    return (
        f"@{east:010.2f}@{north:010.2f}@{_UTM_ZONE}@{_UTM_BAND}@{latitude:09.5f}@{longitude:010.5f}"
        f"@{shot.pano}@@{round(shot.heading_deg) % 360}@@@@{shot.month}@{note}@.jpg"
    )


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
