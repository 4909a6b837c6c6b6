"""Which outputs a backbone has, and how long each is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from stages.errors import ConfigError
from stages.models.backbones.registry import require_image_size, spec_of
from stages.models.backbones.spec import (
    BILINEAR,
    BILINEAR_LENGTH,
    TIMM,
    BackboneSpec,
    layer_output,
    pooling_and_layer,
    split_blocks,
    split_output,
)

Layers = Literal["default", "last", "all"] | tuple[int, ...]


def stored_outputs(
    name: str, outputs: Literal["default"] | tuple[str, ...], layers: Layers, cut: Literal["none"] | int
) -> tuple[str, ...]:
    """Return every output to store: the pooled ones of each layer, then the tokens at the cut.

    Raises
    ------
    ConfigError
        If the backbone has no such layers.
    """
    spec = spec_of(name)
    if layers == "all":
        _require_layers(name, spec, -1)
    usual = spec.default_layers if outputs == "default" else (-1,)
    named = {"default": usual, "last": (-1,), "all": range(-spec.blocks, 0)}
    chosen = named[layers] if isinstance(layers, str) else layers
    pooled = spec.default if outputs == "default" else outputs
    of_layers = (layer_output(output, layer) for layer in chosen for output in pooled)
    return (*of_layers, *(() if cut == "none" else (split_output(cut),)))


def output_lengths(name: str, image_size: int, outputs: str | Sequence[str]) -> dict[str, int]:
    """Return the length of each chosen output, after checking that the backbone has it."""
    spec = spec_of(name)
    require_image_size(name, image_size)
    if name.startswith(TIMM):
        from stages.models.backbones.timm_model import require_timm_size

        require_timm_size(name, image_size)
    if outputs == "default":
        chosen = stored_outputs(name, "default", "default", "none")
    else:
        chosen = tuple([outputs] if isinstance(outputs, str) else outputs)
    splits = [output for output in chosen if split_blocks(output) is not None]
    pooled = [pooling_and_layer(output) for output in chosen if output not in splits]
    if (
        not chosen
        or len(set(chosen)) < len(chosen)
        or not {pooling for pooling, _ in pooled} <= {*spec.choices}
    ):
        raise ConfigError(
            f"extract.outputs is {', '.join(chosen) or 'empty'}: "
            f"{name} offers {', '.join(spec.choices)}, each once"
        )
    if len(splits) > 1:
        raise ConfigError(f"{name} is asked for {' and '.join(splits)}: expected one cut at most")
    return {output: _length(name, spec, image_size, output) for output in chosen}


def _length(name: str, spec: BackboneSpec, image_size: int, output: str) -> int:
    blocks = split_blocks(output)
    if blocks is not None:
        # Imported here, because params.yaml is read through this module and torch takes seconds.
        from stages.models.backbones.split import split_point

        return split_point(name, image_size, blocks).length
    pooling, layer = pooling_and_layer(output)
    if layer == -1:
        return spec.lengths[pooling]
    _require_layers(name, spec, layer)
    if pooling == BILINEAR:
        return BILINEAR_LENGTH
    if spec.kind == "vit":  # all blocks have tokens of the same length
        return spec.length
    from stages.models.backbones.split import feature_map

    return feature_map(name, image_size, spec.blocks + layer + 1)[1]


def _require_layers(name: str, spec: BackboneSpec, layer: int) -> None:
    """Raise ConfigError unless a backbone gives the outputs of an inner layer."""
    if not spec.blocks:
        raise ConfigError(
            f"extract.layers asks for inner layers, but the blocks of {name} do not follow one another: "
            "set extract.layers to last"
        )
    if layer < -spec.blocks:
        raise ConfigError(
            f"extract.layers has {layer}: {name} has {spec.blocks} layers, -{spec.blocks} to -1"
        )
