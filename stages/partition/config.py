"""The settings of the partition stage."""

from __future__ import annotations

from dataclasses import dataclass

from stages.errors import ConfigError


@dataclass(frozen=True)
class PartitionConfig:
    """How the city is cut into classes, and which images get augmented views.

    Attributes
    ----------
    cell_m
        M, side of a cell in metres (4.1).
    groups_per_side
        N; there are N * N groups (4.4).
    min_images_per_class
        A cell with fewer images is no class.
    tail_quantile
        Classes with at most as many images as this quantile are tail.
    head_quantile
        Classes with more images than this quantile are head.
    p_max, p_min
        Greatest and least augmentation probability.
    gamma
        How fast the probability falls with the image count.
    max_views
        Cached views of an image whose class has probability p_max.
    """

    cell_m: float
    groups_per_side: int
    min_images_per_class: int
    tail_quantile: float
    head_quantile: float
    p_max: float
    p_min: float
    gamma: float
    max_views: int

    def __post_init__(self) -> None:
        _expect("cell_m", self.cell_m, 0.1 <= self.cell_m <= 1e6, "0.1 to 1,000,000 metres")
        _expect("groups_per_side", self.groups_per_side, 1 <= self.groups_per_side <= 100, "1 to 100")
        _expect(
            "min_images_per_class", self.min_images_per_class, self.min_images_per_class >= 1, "1 or more"
        )
        _expect("tail_quantile", self.tail_quantile, 0 <= self.tail_quantile <= 1, "0 to 1")
        high = f"tail_quantile ({self.tail_quantile}) to 1"
        _expect("head_quantile", self.head_quantile, self.tail_quantile <= self.head_quantile <= 1, high)
        _expect("p_max", self.p_max, 0 <= self.p_max <= 1, "0 (no augmentation) to 1")
        _expect("p_min", self.p_min, 0 <= self.p_min <= self.p_max, f"0 to p_max ({self.p_max})")
        _expect("gamma", self.gamma, self.gamma >= 0, "0 or more")
        _expect("max_views", self.max_views, 0 <= self.max_views <= 1000, "0 (no cached views) to 1000")


def _expect(key: str, value: float, fine: bool, expected: str) -> None:
    if not fine:
        raise ConfigError(f"partition.{key} is {value}: expected {expected}; mend it in params.yaml")
