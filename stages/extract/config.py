"""The settings of stage one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stages.errors import ConfigError, require
from stages.models.backbones.registry import cut_named, cut_output, require_cut, spec_of


@dataclass(frozen=True)
class ExtractConfig:
    """How images become features; the section `extract` of params.yaml.

    Attributes
    ----------
    backbone : str
        Name of the frozen backbone.
    weights : str
        "pretrained" or a checkpoint's path.
    image_size : int
        Side in pixels of what the backbone sees.
    outputs : "default" or tuple of str
        Pooled outputs to store.
    cut : "none" or int
        Blocks of the backbone after which its tokens are stored too, for blocks after them to be trained.
    dtype : str
        How features are stored.
    precision : str
        How the backbone computes.
    compile : bool
        Whether the backbone goes through torch.compile: a minute at the start, then faster on a GPU.
    shards : int
        Units of work that a split is cut into.
    batch_size : int
        Images per pass of the backbone.
    readers : "auto" or int
        How many images are decoded at a time: by threads beside a CPU, by processes beside a GPU.
        "auto" is two beside a CPU and one per core beside a GPU.
    decoder : str
        What decodes JPEGs: "pillow" on the CPU, or "nvjpeg" on the GPU (views: always Pillow).
    threads : "auto" or int
        CPU threads that the backbone computes with, per process. The last bits of CPU features may
        depend on it. "auto" is PyTorch's own choice, or the machine's cores shared by local workers.
    max_bad_fraction : float
        Share of unreadable images above which a run stops.

    Raises
    ------
    ConfigError
        If a value is out of range, or no output is left.
    """

    backbone: str
    weights: str
    image_size: int
    outputs: Literal["default"] | tuple[str, ...]
    cut: Literal["none"] | int
    dtype: Literal["float16", "float32"]
    precision: Literal["float32", "bfloat16", "float16"]
    compile: bool
    shards: int
    batch_size: int
    readers: Literal["auto"] | int
    decoder: Literal["pillow", "nvjpeg"]
    threads: Literal["auto"] | int
    max_bad_fraction: float

    def __post_init__(self) -> None:
        spec = spec_of(self.backbone)
        if not self.outputs:  # a cut alone makes no feature
            raise ConfigError(
                f"extract.outputs is empty: {self.backbone} offers {', '.join(spec.choices)}, each once"
            )
        if self.cut != "none":
            require_cut(self.backbone, self.cut)
        for output in self.outputs if self.outputs != "default" else ():
            if (blocks := cut_named(output)) is not None:
                raise ConfigError(f"extract.outputs names {output}: set extract.cut to {blocks} instead")
        for name in ("image_size", "shards", "batch_size"):
            value = getattr(self, name)
            require(f"extract.{name}", value, value >= 1, "1 or more")
        for name in ("readers", "threads"):
            value = getattr(self, name)
            require(f"extract.{name}", value, value == "auto" or value >= 1, "auto, or 1 or more")
        fraction = self.max_bad_fraction
        require("extract.max_bad_fraction", fraction, 0 <= fraction <= 1, "0 to 1")

    @property
    def stored(self) -> tuple[str, ...]:
        """Every output to store: the pooled ones, then what leaves the blocks before the cut."""
        pooled = spec_of(self.backbone).default if self.outputs == "default" else self.outputs
        return pooled if self.cut == "none" else (*pooled, cut_output(self.cut))
