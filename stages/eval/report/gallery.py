"""The queries and database photos that the report shows, within a budget of bytes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from stages.eval.report.outcomes import Outcomes
from stages.images.read import UnreadableImage, read_image
from stages.index.manifest import Manifest

RIGHT_SHARE = 0.25
MOST_SMALL = 500
"""Queries without a card that have a photo in the list."""
_QUALITY = 78
_PREFIX = "data:image/jpeg;base64,"


def chosen_queries(outcomes: Outcomes, reachable: npt.NDArray[np.bool_], count: int) -> list[int]:
    """Return up to `count` queries to show: the worst failures first, then some right answers.

    `reachable` (Q,) tells whether a cell's centre lies within the radius of the truth; failures of
    reachable queries come before the others.
    """
    worst = np.argsort(-outcomes.error_m, kind="stable")
    wrong = outcomes.answered & ~outcomes.right
    failures = [*worst[(wrong & reachable)[worst]].tolist(), *worst[(wrong & ~reachable)[worst]].tolist()]
    right = worst[outcomes.right[worst]]
    share = min(len(right), max(round(RIGHT_SHARE * count), count - len(failures)))
    spread = np.linspace(0, len(right) - 1, share).round().astype(int) if share else np.array([], int)
    return [*failures[: count - share], *right[spread].tolist()]


class Album:
    """Thumbnails as data URIs: `longest_px` is their longer side, `budget_bytes` limits all of them."""

    def __init__(self, longest_px: int, budget_bytes: int) -> None:
        self.longest_px = longest_px
        self.left_bytes = budget_bytes
        self.left_out = 0
        self._made: dict[Path, str] = {}

    def thumbnail(self, path: Path) -> str | None:
        """Return a photo as a data URI; None if it is unreadable or the budget is spent."""
        if path not in self._made:
            try:
                image = self.read(path)
            except UnreadableImage:
                return None
            image.thumbnail((self.longest_px, self.longest_px))
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
            self._made[path] = _PREFIX + base64.b64encode(buffer.getvalue()).decode()
        text = self._made[path]
        if len(text) > self.left_bytes:
            self.left_out += 1
            return None
        self.left_bytes -= len(text)
        return text

    def read(self, path: Path) -> Image.Image:
        """Return a photo; UnreadableImage if it cannot be read."""
        return read_image(path, decode_at_least=self.longest_px)


@dataclass(frozen=True)
class DatabasePhotos:
    """Database rows by class, and the heading of every row in degrees (NaN: unknown)."""

    manifest: Manifest
    rows: dict[int, npt.NDArray[np.int64]]
    heading: npt.NDArray[Any] | None

    @classmethod
    def of(
        cls, manifest: Manifest, labels: npt.NDArray[np.integer], class_ids: npt.NDArray[np.int64]
    ) -> DatabasePhotos:
        """Return the photos of some classes; `labels` (rows,) gives the class of every database row."""
        wanted = np.unique(class_ids)
        labelled = np.flatnonzero(np.isin(labels, wanted))
        rows = {int(class_id): labelled[labels[labelled] == class_id] for class_id in wanted}
        heading = manifest.column("heading") if len(wanted) else None
        return cls(manifest, rows, heading)

    def of_class(self, class_id: int, count: int, *, heading: float) -> list[Path]:
        """Return photos of a class; those with a heading close to `heading` (degrees) first."""
        rows = self.rows.get(class_id, np.array([], np.int64))
        if self.heading is not None and np.isfinite(heading):
            turn = np.abs((self.heading[rows] - heading + 180) % 360 - 180)
            rows = rows[np.argsort(np.nan_to_num(turn, nan=360.0), kind="stable")]
        return [self.path_of(int(row)) for row in rows[:count]]

    def path_of(self, row: int) -> Path:
        """Return the file of a database row."""
        return self.manifest.image_path(self.manifest.keys(row, row + 1)[0])


def nearest_rows(
    manifest: Manifest, places: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the database row nearest to each place and its distance in metres, both (P,)."""
    row = np.full(len(places), -1)
    away_m = np.full(len(places), np.inf)
    start = 0
    for batch in manifest.batches(["utm_east", "utm_north"]):
        positions = np.stack([batch["utm_east"].to_numpy(), batch["utm_north"].to_numpy()], axis=1)
        for number, place in enumerate(places):
            distance = np.hypot(*(positions - place).T)
            best = int(np.argmin(distance))
            if distance[best] < away_m[number]:
                row[number], away_m[number] = start + best, distance[best]
        start += len(positions)
    return row, away_m


def small_photos(album: Album, paths: list[Path | None]) -> tuple[list[str], list[int | None]]:
    """Return small thumbnails in what `album` has left, and the number of each path's own (None: no photo).

    Reading photos takes longer than writing the rest of the page, so only the first `MOST_SMALL` get one.
    """
    small = Album(album.longest_px // 2, album.left_bytes)
    photos: list[str] = []
    numbers: list[int | None] = []
    for path in paths:
        text = None
        if path is not None and len(photos) < MOST_SMALL and not small.left_out:
            text = small.thumbnail(path)
        numbers.append(None if text is None else len(photos))
        photos += [] if text is None else [text]
    return photos, numbers


def thumbnails_of(album: Album, paths: list[Path]) -> list[str]:
    """Return the thumbnails of the photos that are readable and within the budget."""
    return [text for path in paths if (text := album.thumbnail(path)) is not None]
