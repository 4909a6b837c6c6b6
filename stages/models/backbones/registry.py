"""The named backbones, and how `extract.backbone` names others: a timm model or a function."""

from __future__ import annotations

import re

from stages.errors import ConfigError
from stages.models.backbones.spec import IMAGENET, PYTHON, TIMM, BackboneSpec
from stages.models.backbones.weights import WeightsSource

_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# These names are also names of folders, and DVC and fsspec give other characters a meaning.
_FORMS = {TIMM: r"\w+(\.[\w-]+)?", PYTHON: r"\w+(\.\w+)*:\w+"}


def _dinov2(size: str, letter: str, length: int, blocks: int, registers: bool) -> BackboneSpec:
    model = f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2"
    original = f"dinov2_vit{letter}14_{'reg4_' if registers else ''}pretrain.pth"
    source = WeightsSource(hub_repo=f"timm/{model}.lvd142m", original=original)
    prefix, number = (5, 4) if registers else (1, 0)
    return BackboneSpec(model, "vit", length, 14, blocks, prefix, *IMAGENET, source, registers=number)


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
    "tf_efficientnet_lite0", "cnn", 1280, 32, 7, 0, *_HALF, WeightsSource(package="lite0")
)


def require_name(name: str) -> None:
    """Raise ConfigError unless a text can name a backbone; whether timm has it is not checked here."""
    for prefix, form in _FORMS.items():
        if name.startswith(prefix) and re.fullmatch(form, name.removeprefix(prefix), re.ASCII):
            return
    if name not in BACKBONES:
        raise ConfigError(
            f"extract.backbone is {name!r}: expected one of {', '.join(BACKBONES)}, "
            "timm:MODEL or timm:MODEL.TAG, or python:MODULE:FUNCTION; `pipeline backbones` lists them"
        )


def spec_of(name: str) -> BackboneSpec:
    """Return the backbone of that name; a function's model is loaded for it, once per process.

    Raises
    ------
    ConfigError
        If there is none.
    """
    require_name(name)
    if name.startswith(TIMM):
        from stages.models.backbones.timm_model import timm_spec  # timm takes seconds to import

        return timm_spec(name)
    if name.startswith(PYTHON):
        from stages.models.backbones.function import describe_function

        return describe_function(name).spec
    return BACKBONES[name]


def licence_of(name: str) -> str:
    """Return the licence that timm states for a backbone's published weights; "unknown" if none."""
    if name not in BACKBONES and not name.startswith(TIMM):
        return "unknown"
    import timm  # takes seconds

    published = timm.get_pretrained_cfg(spec_of(name).model)
    return str((published and published.license) or "unknown")


def require_image_size(name: str, image_size: int) -> None:
    """Raise ConfigError unless a backbone accepts images of that side in pixels."""
    step = spec_of(name).step
    if image_size < step or image_size % step:
        raise ConfigError(f"extract.image_size is {image_size}: {name} needs a multiple of {step} pixels")


def require_split(name: str, blocks: int) -> None:
    """Raise ConfigError unless a backbone can be split after that many blocks."""
    spec = spec_of(name)
    if not spec.blocks:
        raise ConfigError(
            f"extract.cut is {blocks}: the blocks of {name} do not follow one another, "
            "so it cannot be cut: set extract.cut to none"
        )
    if not 1 <= blocks <= spec.blocks:
        what = "blocks" if spec.kind == "vit" else "stages"
        raise ConfigError(
            f"extract.cut is {blocks}: {name} has {spec.blocks} {what}, "
            f"expected none, or 1 to {spec.blocks} of them before the cut"
        )
