"""What is known of a backbone before it is loaded, and the names of its outputs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from stages.images.preprocess import Preprocess
from stages.models.backbones.weights import WeightsSource

TIMM, PYTHON = "timm:", "python:"
BILINEAR, BILINEAR_LENGTH = "bilinear", 2048
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

Kind = Literal["vit", "cnn", "nhwc", "vectors"]
"""Layout of the last features: tokens (B, T, C), maps (B, C, H, W) or (B, H, W, C), vectors (B, F)."""


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone before it is loaded.

    Attributes
    ----------
    model : str
        Its name in timm; empty for a function.
    length : int
        Length F of a pooled output.
    step : int
        `image_size` must be a multiple of it, in pixels.
    blocks : int
        Number of blocks; of a CNN, stages; 0 if they do not follow one another.
    prefix, registers : int
        Tokens before the patches, and how many of them, the last ones, are registers; 0 for a CNN.
    mean, std : tuple of float
        Normalisation of pixel values in 0..1.
    crop_pct : float or None
        Image size divided by the side it is resized to; None: 224 / 256, to the nearest pixel.
    input_px : int
        Side of the images that it was trained on.
    vectors : tuple of (str, int)
        Names and lengths of the outputs of a model that pools its features itself.
    """

    model: str
    kind: Kind
    length: int
    step: int
    blocks: int
    prefix: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: WeightsSource
    registers: int = 0
    crop_pct: float | None = None
    interpolation: str = "bicubic"
    crop_mode: str = "center"
    input_px: int = 224
    vectors: tuple[tuple[str, int], ...] = ()

    @property
    def choices(self) -> tuple[str, ...]:
        """Available pooled outputs of the last layer."""
        if self.kind == "vectors":
            return tuple(name for name, _ in self.vectors)
        class_token = ("cls",) if self.prefix > self.registers else ()
        registers = ("reg",) if self.registers else ()
        # bilinear reads what leaves the last block, which is only known where blocks follow one another
        return (*class_token, *registers, "avg", "gem", *((BILINEAR,) if self.blocks else ()))

    @property
    def default(self) -> tuple[str, ...]:
        """Pooled outputs of the setting "default", of each of `default_layers`."""
        if self.kind == "vectors":
            return self.choices
        if self._has_inner_maps:
            return (BILINEAR,)
        return tuple(name for name in self.choices if name in ("cls", "avg"))

    @property
    def default_layers(self) -> tuple[int, ...]:
        """Layers of the default outputs: the last one, of a CNN the last three."""
        return tuple(range(-min(self.blocks, 3), 0)) if self._has_inner_maps else (-1,)

    @property
    def _has_inner_maps(self) -> bool:
        return self.kind in ("cnn", "nhwc") and self.blocks > 0

    @property
    def lengths(self) -> dict[str, int]:
        """Length of each choice."""
        if self.kind == "vectors":
            return dict(self.vectors)
        return {name: BILINEAR_LENGTH if name == BILINEAR else self.length for name in self.choices}

    def preprocess(self, image_size: int) -> Preprocess:
        """Return the preprocessing for images of that side in pixels."""
        if self.crop_pct is None:
            resize = round(image_size * 256 / 224)
        else:
            resize = math.floor(image_size / self.crop_pct)
        return Preprocess(
            image_size, resize, self.interpolation, 2 * resize, self.mean, self.std, self.crop_mode
        )


def split_output(blocks: int) -> str:
    """Return the name of the output that stores the tokens after the first blocks: ``cut10``."""
    return f"cut{blocks}"


def split_blocks(output: str) -> int | None:
    """Return the number of blocks before an output's split: 10 for ``cut10``, None for a pooled one."""
    match = re.fullmatch("cut(0|[1-9][0-9]*)", output)
    return None if match is None else int(match[1])


def pooled_among(outputs: Iterable[str]) -> tuple[str, ...]:
    """Return the pooled ones of some outputs, without the tokens that trainable blocks start from."""
    return tuple(output for output in outputs if split_blocks(output) is None)


def layer_output(pooling: str, layer: int) -> str:
    """Return the name of a pooled output of a layer: ``avg@-2``, and ``avg`` for the last layer, -1."""
    return pooling if layer == -1 else f"{pooling}@{layer}"


def pooling_and_layer(output: str) -> tuple[str, int]:
    """Return pooling and layer of a pooled output: ("avg", -2) for ``avg@-2``, ("avg", -1) for ``avg``."""
    match = re.fullmatch(r"(.+)@(-[1-9][0-9]*)", output)
    return (output, -1) if match is None else (match[1], int(match[2]))
