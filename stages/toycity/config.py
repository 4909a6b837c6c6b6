"""Settings of the toy city and the numbers that describe a drawn one."""

from __future__ import annotations

from dataclasses import dataclass

from stages.errors import require

OUTSIDE_M = 25.0
"""A query farther than this from every database image is outside the database."""


@dataclass(frozen=True)
class CityConfig:
    """The `toycity` section of params.yaml; `outside_share` is the share of queries beyond 25 m."""

    images: int
    queries: int
    seed: int
    image_px: int
    outside_share: float

    def __post_init__(self) -> None:
        # Fewer than 40 images do not fill a street.
        require("toycity.images", self.images, self.images >= 40, "at least 40")
        require("toycity.queries", self.queries, self.queries >= 1, "at least 1")
        require("toycity.seed", self.seed, self.seed >= 0, "0 or more")
        require("toycity.image_px", self.image_px, 64 <= self.image_px <= 1024, "64 to 1024")
        require("toycity.outside_share", self.outside_share, 0.0 <= self.outside_share <= 0.5, "0 to 0.5")


@dataclass(frozen=True)
class CityResult:
    """Contents of a drawn city; city.json stores all fields but `redrawn`.

    Attributes
    ----------
    database, queries : int
        Number of images.
    queries_outside : int
        Queries more than 25 m from every database image.
    cells : int
        Cells of 10 m side that contain a database image.
    images_per_cell : tuple[int, int, int]
        Minimum, median and maximum of the database images in such a cell.
    images_per_street : dict[str, int]
        Database images of each street, most photographed street first.
    redrawn : bool
        False if the folder already contained this city.
    """

    database: int
    queries: int
    queries_outside: int
    cells: int
    images_per_cell: tuple[int, int, int]
    images_per_street: dict[str, int]
    redrawn: bool
