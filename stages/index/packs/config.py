"""The settings of packing."""

from __future__ import annotations

from dataclasses import dataclass

from stages.errors import require


@dataclass(frozen=True)
class PackConfig:
    """Settings of packing; the section `pack` of params.yaml.

    Attributes
    ----------
    side
        Shorter side in pixels to which larger images are reduced; 0 packs every file unchanged.
    quality
        JPEG quality of reduced images, 1 to 95.
    images_per_shard
        Images in one HDF5 file. A worker holds this many encoded images in memory.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    side: int
    quality: int
    images_per_shard: int

    def __post_init__(self) -> None:
        require("pack.side", self.side, self.side >= 0, "pixels, or 0 to keep images as they are")
        require("pack.quality", self.quality, 1 <= self.quality <= 95, "1 to 95")
        require("pack.images_per_shard", self.images_per_shard, self.images_per_shard >= 1, "1 or more")
