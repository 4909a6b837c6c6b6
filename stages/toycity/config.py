"""The settings of the toy city and what drawing it yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stages.errors import require


@dataclass(frozen=True)
class CityConfig:
    """The `toycity` section of params.yaml.

    Attributes
    ----------
    images : int
        Database images, at least 40 (fewer do not make a street).
    queries : int
        Query images, at least 1.
    seed : int
        Another seed is another city.
    image_px : int
        Side of the square pictures, pixels.
    outside_share : float
        Share of the queries that lies more than 25 m from every database image.
    """

    images: int
    queries: int
    seed: int
    image_px: int
    outside_share: float

    def __post_init__(self) -> None:
        require("toycity.images", self.images, self.images >= 40, "at least 40")
        require("toycity.queries", self.queries, self.queries >= 1, "at least 1")
        require("toycity.seed", self.seed, self.seed >= 0, "0 or more")
        require("toycity.image_px", self.image_px, 64 <= self.image_px <= 1024, "64 to 1024")
        require("toycity.outside_share", self.outside_share, 0.0 <= self.outside_share <= 0.5, "0 to 0.5")


@dataclass(frozen=True)
class CityResult:
    """What a drawn city holds.

    Attributes
    ----------
    database, queries : int
        Images drawn of each kind.
    queries_outside : int
        Queries more than 25 m from every database image.
    cells : int
        Cells of 10 m side that hold a database image.
    images_per_cell : tuple[int, int, int]
        Least, median and most database images of such a cell: the long tail.
    images_per_street : dict[str, int]
        Database images by street, most visited first.
    redrawn : bool
        False if the folder already held this very city.
    """

    database: int
    queries: int
    queries_outside: int
    cells: int
    images_per_cell: tuple[int, int, int]
    images_per_street: dict[str, int]
    redrawn: bool

    def counts(self) -> dict[str, Any]:
        """The numbers as city.json keeps them."""
        return {
            "database": self.database,
            "queries": self.queries,
            "queries_outside": self.queries_outside,
            "cells": self.cells,
            "images_per_cell": list(self.images_per_cell),
            "images_per_street": self.images_per_street,
        }
