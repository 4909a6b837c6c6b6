"""The available backbones, and what is known of each before it is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from stages.errors import ConfigError
from stages.models.backbones.weights import WeightsSource

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone before it is loaded.

    Attributes
    ----------
    model : str
        Its name in timm.
    length : int
        Length F of a pooled output.
    step : int
        `image_size` must be a multiple of it, in pixels.
    blocks : int
        Number of blocks; of a CNN, stages.
    prefix : int
        Tokens before the patches: class token and registers; 0 for a CNN.
    mean, std : tuple of float
        Normalisation of pixel values in 0..1.
    """

    model: str
    kind: Literal["vit", "cnn"]
    length: int
    step: int
    blocks: int
    prefix: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: WeightsSource

    @property
    def choices(self) -> tuple[str, ...]:
        """Available pooled outputs."""
        return ("cls", "avg", "gem") if self.kind == "vit" else ("avg", "gem")

    @property
    def default(self) -> tuple[str, ...]:
        """Pooled outputs of the setting "default"."""
        return ("cls", "avg") if self.kind == "vit" else ("avg",)


def _dinov2(size: str, letter: str, length: int, blocks: int, registers: bool) -> BackboneSpec:
    model = f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2"
    original = f"dinov2_vit{letter}14_{'reg4_' if registers else ''}pretrain.pth"
    source = WeightsSource(hub_repo=f"timm/{model}.lvd142m", original=original)
    prefix = 5 if registers else 1
    return BackboneSpec(model, "vit", length, 14, blocks, prefix, *_IMAGENET, source)


BACKBONES: dict[str, BackboneSpec] = {
    f"dinov2_vit{letter}14{'_reg' if registers else ''}": _dinov2(size, letter, length, blocks, registers)
    for size, letter, length, blocks in (
        ("small", "s", 384, 12),
        ("base", "b", 768, 12),
        ("large", "l", 1024, 24),
        ("giant", "g", 1536, 40),
    )
    for registers in (False, True)
}
BACKBONES["efficientnet_lite0"] = BackboneSpec(
    "tf_efficientnet_lite0", "cnn", 1280, 32, 7, 0, *_HALF, WeightsSource(package=True)
)


def spec_of(name: str) -> BackboneSpec:
    """Return the backbone of that name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if name not in BACKBONES:
        raise ConfigError(f"extract.backbone is {name!r}: expected one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


def require_image_size(name: str, image_size: int) -> None:
    """Raise ConfigError unless a backbone accepts images of that side in pixels."""
    step = spec_of(name).step
    if image_size < step or image_size % step:
        raise ConfigError(f"extract.image_size is {image_size}: {name} needs a multiple of {step} pixels")


def require_split(name: str, blocks: int) -> None:
    """Raise ConfigError unless a backbone can be split after that many blocks."""
    spec = spec_of(name)
    if not 1 <= blocks <= spec.blocks:
        what = "blocks" if spec.kind == "vit" else "stages"
        raise ConfigError(
            f"extract.cut is {blocks}: {name} has {spec.blocks} {what}, "
            f"expected none, or 1 to {spec.blocks} of them before the cut"
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
