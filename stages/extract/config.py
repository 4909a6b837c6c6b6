"""Settings of extraction."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from stages.errors import ConfigError, require
from stages.models.backbones.outputs import stored_outputs
from stages.models.backbones.registry import BACKBONES, require_name, require_split
from stages.models.backbones.spec import pooling_and_layer, split_blocks

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
    layers: Literal["default", "last", "all"] | tuple[int, ...]
    cut: Literal["none"] | int
    dtype: Literal["float16", "float32"]
    precision: Literal["float32", "bfloat16", "float16"]
    compile: bool
    shards: int
    batch_size: int
    readers: Literal["auto"] | int
    decoder: Literal["pillow", "nvjpeg"]
    decode: Literal["exact", "scaled"]
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
        if self.decode == "scaled" and self.decoder == "nvjpeg":
            raise ConfigError(
                "extract.decode is scaled, but nvJPEG decodes at full size only: set extract.decode: exact, "
                "or extract.decoder: pillow"
            )
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
        """Check backbone, outputs, layers and cut, as far as the model need not be known."""
        require_name(self.backbone)
        if not self.outputs:  # tokens at a cut alone are no feature
            named = BACKBONES.get(self.backbone)
            choices = f"{self.backbone} offers {', '.join(named.choices)}, each once" if named else "name one"
            raise ConfigError(f"extract.outputs is empty: {choices}, or set it to default")
        if self.cut != "none" and self.backbone in BACKBONES:  # others are checked once they are described
            require_split(self.backbone, self.cut)
        for output in self.outputs if self.outputs != "default" else ():
            if (blocks := split_blocks(output)) is not None:
                raise ConfigError(f"extract.outputs names {output}: set extract.cut to {blocks} instead")
            if (layer := pooling_and_layer(output)[1]) != -1:
                raise ConfigError(f"extract.outputs names {output}: set extract.layers to [{layer}] instead")
        layers = self.layers
        valid = isinstance(layers, str) or (layers and max(layers) < 0 and len(set(layers)) == len(layers))
        require(
            "extract.layers", layers, bool(valid), "default, last, all, or a list such as [-2, -1], each once"
        )

    @property
    def stored(self) -> tuple[str, ...]:
        """Every output to store: the pooled ones of each layer, then the tokens at the cut."""
        return stored_outputs(self.backbone, self.outputs, self.layers, self.cut)
