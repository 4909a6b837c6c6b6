"""The settings of the partition stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stages.errors import require

Scheme = Literal["grid", "quadtree", "hierarchy", "combinatorial", "heading"]


@dataclass(frozen=True)
class QuadtreeConfig:
    """Adaptive cells: larger where images are rare (PlaNet).

    Attributes
    ----------
    max_images
        A cell with more images is split in four, unless its side is `cell_m` already.
    levels
        Number of times the largest cells may be split: their side is 2 ** levels cells.
    """

    max_images: int
    levels: int

    def __post_init__(self) -> None:
        require("partition.quadtree.max_images", self.max_images, self.max_images >= 1, "1 or more")
        require("partition.quadtree.levels", self.levels, 0 <= self.levels <= 12, "0 (the grid) to 12")


@dataclass(frozen=True)
class HierarchyConfig:
    """Coarser grids in addition to the finest (HGE).

    Attributes
    ----------
    coarser
        Sides of the coarser grids in cells, ascending, each a multiple of the one before.
    """

    coarser: tuple[int, ...]

    def __post_init__(self) -> None:
        steps = zip((1, *self.coarser), self.coarser, strict=False)
        nested = len(self.coarser) > 0 and all(step > side and step % side == 0 for side, step in steps)
        expected = "ascending multiples of one another such as [2, 4]"
        require("partition.hierarchy.coarser", list(self.coarser), nested, expected)


@dataclass(frozen=True)
class CombinatorialConfig:
    """Shifted grids whose intersections are the cells (CPlaNet).

    Attributes
    ----------
    grids
        Number of grids, and the side of their squares in cells. Each grid is shifted one cell
        north-east of the one before, so that one square of each grid share exactly one cell.
    """

    grids: int

    def __post_init__(self) -> None:
        require("partition.combinatorial.grids", self.grids, 2 <= self.grids <= 16, "2 to 16")


@dataclass(frozen=True)
class HeadingConfig:
    """Classes of cell and heading (CosPlace).

    Attributes
    ----------
    bin_deg
        alpha, width of a heading bin in degrees; north is the middle of the first bin.
    groups
        L, number of heading groups; bins of one group are at least L bins apart.
    """

    bin_deg: float
    groups: int

    def __post_init__(self) -> None:
        fits = self.bin_deg > 0 and (360 / self.bin_deg).is_integer()
        require("partition.heading.bin_deg", self.bin_deg, fits, "a part of the circle such as 30")
        divides = self.groups >= 1 and self.bins % self.groups == 0
        expected = f"1 or another divisor of the {self.bins} bins of {self.bin_deg:g} degrees"
        require("partition.heading.groups", self.groups, divides, expected)

    @property
    def bins(self) -> int:
        """Number of bins in the circle."""
        return round(360 / self.bin_deg)


@dataclass(frozen=True)
class PartitionConfig:
    """How the city is cut into classes, and which images get augmented views.

    Attributes
    ----------
    scheme
        How cells are formed; each scheme is a module of `schemes`.
    cell_m
        M, side of a cell in metres (4.1); of the finest cells if there are several sizes.
    groups_per_side
        N; there are N * N groups (4.4) for each grid and each heading group. "auto" chooses it by the
        number of classes, see `groups`.
    min_images_per_class
        A cell with fewer images is not a class.
    tail_quantile
        Classes with at most this quantile of images are tail.
    head_quantile
        Classes with more than this quantile of images are head.
    p_max, p_min
        Largest and smallest augmentation probability.
    gamma
        How steeply the probability falls with the image count.
    max_views
        Cached views of an image whose class has probability p_max.
    quadtree, hierarchy, combinatorial, heading
        Settings of the schemes of these names.
    """

    scheme: Scheme
    cell_m: float
    groups_per_side: int | Literal["auto"]
    min_images_per_class: int
    tail_quantile: float
    head_quantile: float
    p_max: float
    p_min: float
    gamma: float
    max_views: int
    quadtree: QuadtreeConfig
    hierarchy: HierarchyConfig
    combinatorial: CombinatorialConfig
    heading: HeadingConfig

    def __post_init__(self) -> None:
        require("partition.cell_m", self.cell_m, 0.1 <= self.cell_m <= 1e6, "0.1 to 1,000,000 metres")
        require("partition.groups_per_side", self.groups_per_side, 1 <= self.side <= 100, "auto, or 1 to 100")
        require(
            "partition.min_images_per_class",
            self.min_images_per_class,
            self.min_images_per_class >= 1,
            "1 or more",
        )
        require("partition.tail_quantile", self.tail_quantile, 0 <= self.tail_quantile <= 1, "0 to 1")
        high = f"tail_quantile ({self.tail_quantile}) to 1"
        require(
            "partition.head_quantile", self.head_quantile, self.tail_quantile <= self.head_quantile <= 1, high
        )
        require("partition.p_max", self.p_max, 0 <= self.p_max <= 1, "0 (no augmentation) to 1")
        require("partition.p_min", self.p_min, 0 <= self.p_min <= self.p_max, f"0 to p_max ({self.p_max})")
        require("partition.gamma", self.gamma, self.gamma >= 0, "0 or more")
        require(
            "partition.max_views", self.max_views, 0 <= self.max_views <= 1000, "0 (no cached views) to 1000"
        )

    @property
    def side(self) -> int:
        """N as a number; 1 for "auto", until the classes are counted."""
        return 1 if self.groups_per_side == "auto" else self.groups_per_side
