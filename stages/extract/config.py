"""Settings of extraction."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from stages.errors import ConfigError, require
from stages.models.backbones.registry import require_split, spec_of, split_blocks, split_output

IMPORTED = "imported"  # extract.backbone: imported:<name>, and the backbone in the recipe of such features
_IMPORT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


@dataclass(frozen=True)
class ExtractConfig:
    """Section `extract` of params.yaml, which explains each setting.

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
        if self.imported is None:
            self._require_outputs()
        for name in ("image_size", "shards", "batch_size"):
            value = getattr(self, name)
            require(f"extract.{name}", value, value >= 1, "1 or more")
        for name in ("readers", "threads"):
            value = getattr(self, name)
            require(f"extract.{name}", value, value == "auto" or value >= 1, "auto, or 1 or more")
        fraction = self.max_bad_fraction
        require("extract.max_bad_fraction", fraction, 0 <= fraction <= 1, "0 to 1")

    @property
    def imported(self) -> str | None:
        """Name of the imported features if the backbone is ``imported:<name>``, else None."""
        prefix, colon, name = self.backbone.partition(":")
        if prefix != IMPORTED:
            return None
        if not colon or not _IMPORT_NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} does not name imported features: expected up to 64 letters, digits and . _ - +, "
                "beginning with a letter or digit"
            )
        return name

    def _require_outputs(self) -> None:
        spec = spec_of(self.backbone)
        if not self.outputs:  # tokens at a cut alone are no feature
            raise ConfigError(
                f"extract.outputs is empty: {self.backbone} offers {', '.join(spec.choices)}, each once"
            )
        if self.cut != "none":
            require_split(self.backbone, self.cut)
        for output in self.outputs if self.outputs != "default" else ():
            if (blocks := split_blocks(output)) is not None:
                raise ConfigError(f"extract.outputs names {output}: set extract.cut to {blocks} instead")

    @property
    def stored(self) -> tuple[str, ...]:
        """Every output to store: the pooled ones, then the tokens at the cut."""
        pooled = spec_of(self.backbone).default if self.outputs == "default" else self.outputs
        return pooled if self.cut == "none" else (*pooled, split_output(self.cut))
