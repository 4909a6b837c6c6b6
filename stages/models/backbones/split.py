"""A backbone split in two: the first blocks, whose tokens can be cached, and the trainable rest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from stages.models.backbones.block_order import block_order, chain, enter
from stages.models.backbones.create import empty_model
from stages.models.backbones.registry import require_image_size, require_split, spec_of
from stages.models.backbones.spec import TIMM, split_output
from stages.models.backbones.timm_model import model_and_features


@dataclass(frozen=True)
class SplitPoint:
    """The tokens that leave a backbone's first blocks.

    Attributes
    ----------
    blocks : int
        Blocks (of a CNN: stages) before the split.
    prefix : int
        Class token and registers; 0 for a CNN.
    side : int
        Patches along a side; of a CNN, positions of its feature map.
    channels : int
        Length C of a token.
    """

    blocks: int
    prefix: int
    side: int
    channels: int

    @property
    def tokens(self) -> int:
        """Tokens T of an image: the prefix, then the patches row by row."""
        return self.prefix + self.side**2

    @property
    def length(self) -> int:
        """Length T * C of all tokens as one row."""
        return self.tokens * self.channels

    @property
    def name(self) -> str:
        """Name of the stored output."""
        return split_output(self.blocks)


def split_point(backbone_name: str, image_size: int, blocks: int) -> SplitPoint:
    """Return the shape of the tokens after a backbone's first blocks, without loading its weights.

    Raises
    ------
    ConfigError
        If there is no such backbone, or the image size or the number of blocks does not suit it.
    """
    spec = spec_of(backbone_name)
    require_image_size(backbone_name, image_size)
    require_split(backbone_name, blocks)
    if spec.kind == "vit" and not backbone_name.startswith(TIMM):  # all blocks have tokens of one shape
        return SplitPoint(blocks, spec.prefix, image_size // spec.step, spec.length)
    tokens, channels = feature_map(backbone_name, image_size, blocks)
    return SplitPoint(blocks, spec.prefix, isqrt(tokens - spec.prefix), channels)


@lru_cache(maxsize=64)
@torch.inference_mode()
def feature_map(backbone_name: str, image_size: int, blocks: int) -> tuple[int, int]:
    """Return positions and channels of a CNN's feature map, from a pass without values."""
    if backbone_name.startswith(TIMM):
        model, _ = model_and_features(backbone_name, image_size)
    else:
        with torch.device("meta"):
            model = empty_model(backbone_name, image_size).eval()
    images = next(model.parameters()).new_zeros(1, 3, image_size, image_size)
    _, tokens, channels = tokens_at_split(model, spec_of(backbone_name).kind, images, blocks).shape
    return tokens, channels


def tokens_at_split(model: nn.Module, kind: str, images: Tensor, blocks: int) -> Tensor:
    """Return the tokens that leave the first blocks of a backbone.

    Parameters
    ----------
    model : nn.Module
        The timm model, optimised or not.
    kind : {"vit", "cnn", "nhwc"}
        Transformer or convolutional network, or one whose maps have the channels last.
    images : Tensor, (B, 3, S, S)
        Normalised images.
    blocks : int
        How many blocks.

    Returns
    -------
    Tensor, (B, T, C)
        Class token and registers, then the patches row by row; of a CNN, the positions of its
        feature map row by row.
    """
    values, arguments = enter(model, kind, images)
    order = block_order(model, kind)
    return as_tokens(chain(order.blocks[:blocks] if order else (), values, **arguments), kind)


def as_tokens(values: Tensor, kind: str) -> Tensor:
    """Return tokens (B, T, C) of tokens or of a feature map."""
    if kind == "cnn":
        return values.flatten(2).transpose(1, 2)
    return values.flatten(1, 2) if kind == "nhwc" else values


def tokens_of_layers(
    model: nn.Module, kind: str, images: Tensor, layers: set[int]
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Return the tokens (B, T, C) of some layers, by layer, and those that leave each block, by number.

    Layers count from the last one, -1, backwards. Inner ones of a transformer pass the final
    normalisation too, as in DINOv2's ``get_intermediate_layers``.
    """
    order = block_order(model, kind)
    if order is None:
        raise ValueError("the model's blocks have no recognised order")
    values, arguments = enter(model, kind, images)
    of_layer, after = {}, {}
    for number, block in enumerate(order.blocks, start=1):
        values = block(values, **arguments)
        after[number] = values
        layer = number - len(order.blocks) - 1
        if layer in layers and layer != -1:
            of_layer[layer] = as_tokens(chain(order.last, values) if kind == "vit" else values, kind)
    of_layer[-1] = as_tokens(chain(order.last, values), kind)
    return of_layer, {number: as_tokens(tokens, kind) for number, tokens in after.items()}


class BlocksAfterSplit(nn.Module):
    """The blocks after a split, then the last layers.

    Its modules are those of the timm model, optimised or not: training one trains the other.
    `last` is the final normalisation; of a CNN, its last convolution and what follows it.
    """

    def __init__(self, model: nn.Module, kind: str, split: SplitPoint) -> None:
        super().__init__()
        self.kind, self.split = kind, split
        order = block_order(model, kind)
        if order is None:
            raise ValueError("the model's blocks have no recognised order")
        self.blocks = nn.Sequential(*order.blocks[split.blocks :])
        self.last = order.last[0] if kind == "vit" else nn.Sequential(*order.last)
        self.register_buffer("rope", _rotary_positions(model, kind), persistent=False)
        self.train(model.training)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the backbone's last tokens, prefix (B, P, F) and patches (B, N, F), of tokens (B, T, C)."""
        if self.kind == "vit":
            arguments = {} if self.rope is None else {"rope": self.rope}
            last = self.last(chain(self.blocks, tokens, **arguments))
            return last[:, : self.split.prefix], last[:, self.split.prefix :]
        side = self.split.side
        maps = tokens.reshape(tokens.shape[0], side, side, tokens.shape[2])
        if self.kind == "cnn":  # a view in channels-last layout, which the optimised convolutions expect
            maps = maps.permute(0, 3, 1, 2)
        last = as_tokens(self.last(self.blocks(maps)), self.kind)
        return last[:, :0], last


def _rotary_positions(model: nn.Module, kind: str) -> Tensor | None:
    """Return the rotary positions that every block of a transformer adds; None without them."""
    if kind != "vit" or getattr(model, "rope", None) is None:
        return None
    sides: Any = model.get_submodule("patch_embed").img_size
    weight = next(model.parameters())
    with torch.no_grad():
        _, arguments = enter(model, kind, weight.new_zeros(1, 3, *sides))
    rope: Tensor | None = arguments.get("rope")
    return rope
