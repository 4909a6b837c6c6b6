"""Advice on a partition: what bounds the result, in plain words, and which setting changes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import KDTree

from stages.index.manifest import Manifest
from stages.partition import grid
from stages.partition.cells import Codes, blocks, code, count
from stages.partition.classes import ClassTable, in_class
from stages.partition.places import Places
from stages.partition.position_noise import position_noise_m

DROPPED = 0.05  # up to this share of the photos in no class is normal
HEADING_BINS = 12
HEADING_BIN_DEG = 360 / HEADING_BINS  # as partition.heading.bin_deg by default
ENOUGH_HEADINGS = 80.0  # percent of the photos in classes of cell and heading


@dataclass(frozen=True)
class Advice:
    """A fact that bounds the result, and the line of params.yaml or the data that changes it."""

    text: str
    remedy: str


def advise(
    classes: ClassTable,
    labels: npt.NDArray[np.integer],
    photos: Manifest,
    queries: grid.Positions | None,
    radius_m: float,
) -> list[Advice]:
    """Return what bounds the result of a partition.

    Parameters
    ----------
    classes
        All classes.
    labels
        Class or place of every database row, (rows,) or (rows, partitions); negative: none.
    photos
        The database; positions, headings, sessions and times are read.
    queries
        (Q, 2); None if they are not indexed yet.
    radius_m
        Distance within which an answer counts as correct.
    """
    codes, lattice = code(photos.positions(), classes.cell_m)
    photographed = grid.centres(lattice.squares(count(codes, 1).kept), classes.cell_m)
    dropped = len(labels) - int(in_class(labels).sum())
    advice = _single_classes(classes) + _small_cells(classes, photos)
    advice += _unused_headings(classes, photos, codes)
    near, reachable = 0.0, 0.0
    if queries is not None and len(queries):
        advice += _far_queries(photographed, queries, classes.cell_m, radius_m)
        if classes.span is None or classes.partitions > 1:  # else classes of one photo are other squares
            near = _share_near(Places.of(classes).centres, queries, radius_m)
            reachable = _share_near(photographed, queries, radius_m)
    if dropped > DROPPED * len(labels) or near < reachable:
        advice.insert(0, _few_images(classes, dropped, len(labels)))
    if near < reachable:
        text = f"{near:.0f} % of the queries lie within {radius_m:g} m of a class"
        least = "at least " if classes.partitions > 1 else ""  # some places lie between the photos
        remedy = f"with partition.min_images_per_class: 1 it is {least}{reachable:.0f} %"
        advice.insert(1, Advice(text, remedy))
    return advice


def _share_near(centres: grid.Positions, queries: grid.Positions, radius_m: float) -> float:
    """Return the share of the queries within the radius of a centre, in percent."""
    return 100 * float((_distances(centres, queries) <= radius_m).mean())


def _distances(centres: grid.Positions, queries: grid.Positions) -> npt.NDArray[np.float64]:
    distances: npt.NDArray[np.float64] = KDTree(centres).query(queries)[0][:, 0]
    return distances


def _few_images(classes: ClassTable, dropped: int, rows: int) -> Advice:
    """Return advice on photos that are in no class because their cell holds too few."""
    fewest = int(classes.images.min())
    return Advice(
        f"{dropped:,} of {rows:,} photos lie in cells with fewer than {fewest} photos and are in no class",
        f"lower partition.min_images_per_class, or raise partition.cell_m (now {classes.cell_m:g})",
    )


def _single_classes(classes: ClassTable) -> list[Advice]:
    """Return advice on groups with a single class: their heads have nothing to tell apart."""
    sizes = np.bincount(classes.group, minlength=classes.groups)
    single = int((sizes == 1).sum())
    if not single:
        return []
    text = f"{single} of {classes.groups} groups hold a single class, so their heads have nothing to learn"
    smaller = "set partition.groups_per_side: 1" if classes.groups_per_side > 1 else "lower partition.cell_m"
    return [Advice(text, smaller)]


def _small_cells(classes: ClassTable, photos: Manifest) -> list[Advice]:
    """Return advice on cells that are smaller than the scatter of the positions."""
    noise_m = position_noise_m(photos)
    if noise_m is None or classes.cell_m >= 2 * noise_m:
        return []
    text = f"a tenth of the photos lie {noise_m:.0f} m or more off the path of their session, and a cell is "
    text += f"{classes.cell_m:g} m wide: photos of one place fall into different cells"
    return [Advice(text, f"set partition.cell_m: {max(5, 5 * np.ceil(2 * noise_m / 5)):g}")]


def _unused_headings(classes: ClassTable, photos: Manifest, codes: Codes) -> list[Advice]:
    """Return advice on headings that no class uses, if there are enough photos to use them.

    `codes` (rows,) are the cells of the photos; they are overwritten, because there may be millions.
    """
    if classes.heading is not None:
        return []
    headings = photos.column("heading")
    if not np.isfinite(headings).all():
        return []
    for rows in blocks(len(codes)):
        bins = np.floor(headings[rows].astype(np.float64) / HEADING_BIN_DEG + 0.5).astype(np.int64)
        codes[rows] = codes[rows] * HEADING_BINS + bins % HEADING_BINS
    counted = count(codes, int(classes.images.min()))
    share = 100 * float(counted.images.sum()) / len(headings)
    if share < ENOUGH_HEADINGS:
        return []
    remedy = f"compare with partition.scheme: heading, which leaves {share:.0f} % of the photos in classes"
    return [Advice("all photos have a heading, which these classes do not use", remedy)]


def _far_queries(
    photographed: grid.Positions, queries: grid.Positions, cell_m: float, radius_m: float
) -> list[Advice]:
    """Return advice on queries that are surely farther than the radius from every database photo."""
    # The nearest photo is at most half a diagonal nearer than the centre of its cell.
    far = int((_distances(photographed, queries) - cell_m / np.sqrt(2) > radius_m).sum())
    if not far:
        return []
    whose = f"at least {far:,} of {len(queries):,} queries"
    text = f"{whose} are farther than {radius_m:g} m from every database photo"
    return [Advice(text, "add database photos there: no setting can place these queries")]
