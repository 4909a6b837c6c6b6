"""Which backbones there are, and what is known of them before they are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stages.weights import WeightsSource

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class BackboneSpec:
    """What is known of a backbone before it is loaded.

    Attributes
    ----------
    model : str
        Its name in timm.
    kind : {"vit", "cnn"}
        Transformer or convolutional network.
    length : int
        Length F of a pooled output.
    step : int
        `image_size` is a multiple of it, in pixels.
    mean, std : tuple of float
        Normalisation of pixel values within 0..1.
    source : WeightsSource
        Where its weights are published.
    """

    model: str
    kind: Literal["vit", "cnn"]
    length: int
    step: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: WeightsSource

    @property
    def choices(self) -> tuple[str, ...]:
        """Pooled outputs on offer."""
        return ("cls", "avg", "gem") if self.kind == "vit" else ("avg", "gem")


def _dinov2(size: str, letter: str, length: int, registers: bool) -> BackboneSpec:
    model = f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2"
    original = f"dinov2_vit{letter}14_{'reg4_' if registers else ''}pretrain.pth"
    source = WeightsSource(hub_repo=f"timm/{model}.lvd142m", original=original)
    return BackboneSpec(model, "vit", length, 14, *_IMAGENET, source)


BACKBONES: dict[str, BackboneSpec] = {
    f"dinov2_vit{letter}14{'_reg' if registers else ''}": _dinov2(size, letter, length, registers)
    for size, letter, length in (
        ("small", "s", 384),
        ("base", "b", 768),
        ("large", "l", 1024),
        ("giant", "g", 1536),
    )
    for registers in (False, True)
}
BACKBONES["efficientnet_lite0"] = BackboneSpec(
    "tf_efficientnet_lite0", "cnn", 1280, 32, *_HALF, WeightsSource(package=True)
)
