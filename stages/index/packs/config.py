"""The settings of packing."""

from __future__ import annotations

from dataclasses import dataclass

from stages.errors import ConfigError


@dataclass(frozen=True)
class PackConfig:
    """How images are packed; the section `pack` of params.yaml.

    Attributes
    ----------
    side : int
        Pixels that the shorter side of larger images is reduced to; 0 packs every file as it is.
    quality : int
        JPEG quality of reduced images, 1 to 95.
    images_per_shard : int
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
        if self.side < 0:
            raise ConfigError(f"pack.side is {self.side}: expected pixels, or 0 to keep images as they are")
        if not 1 <= self.quality <= 95:
            raise ConfigError(f"pack.quality is {self.quality}: expected 1 to 95")
        if self.images_per_shard < 1:
            raise ConfigError(f"pack.images_per_shard is {self.images_per_shard}: expected 1 or more")
