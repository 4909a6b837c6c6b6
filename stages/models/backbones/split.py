"""A backbone split in two: the first blocks, whose tokens can be cached, and the trainable rest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from math import isqrt

import torch
from torch import Tensor, nn

from stages.models.backbones.create import empty_model
from stages.models.backbones.registry import (
    require_image_size,
    require_split,
    spec_of,
    split_blocks,
    split_output,
)

__all__ = ["BlocksAfterSplit", "SplitPoint", "split_blocks", "split_point", "tokens_at_split"]


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
    if spec.kind == "vit":  # all blocks have tokens of the same shape
        return SplitPoint(blocks, spec.prefix, image_size // spec.step, spec.length)
    tokens, channels = _feature_map(backbone_name, image_size, blocks)
    return SplitPoint(blocks, 0, isqrt(tokens), channels)


@lru_cache(maxsize=8)
def _feature_map(backbone_name: str, image_size: int, blocks: int) -> tuple[int, int]:
    """Return positions and channels of a CNN's feature map, from a pass on the meta device."""
    with torch.device("meta"):
        model = empty_model(backbone_name, image_size).eval()
        images = torch.empty(1, 3, image_size, image_size)
        _, tokens, channels = tokens_at_split(model, "cnn", images, blocks).shape
    return tokens, channels


def tokens_at_split(model: nn.Module, kind: str, images: Tensor, blocks: int) -> Tensor:
    """Return the tokens that leave the first blocks of a backbone.

    Parameters
    ----------
    model : nn.Module
        The timm model, optimised or not.
    kind : {"vit", "cnn"}
        Transformer or convolutional network.
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
    if kind == "vit":
        patches = model.get_submodule("patch_embed")(images)
        tokens: Tensor = model._pos_embed(patches)  # type: ignore[operator]
        tokens = model.get_submodule("norm_pre")(model.get_submodule("patch_drop")(tokens))
    else:
        tokens = model.get_submodule("bn1")(model.get_submodule("conv_stem")(images))
    for block in islice(model.get_submodule("blocks").children(), blocks):
        tokens = block(tokens)
    return tokens if kind == "vit" else tokens.flatten(2).transpose(1, 2)


class BlocksAfterSplit(nn.Module):
    """The blocks after a split, then the last layers.

    Its modules are those of the timm model, optimised or not: training one trains the other.
    `last` is the final normalisation; of a CNN, its last convolution and what follows it.
    """

    def __init__(self, model: nn.Module, kind: str, split: SplitPoint) -> None:
        super().__init__()
        self.kind, self.split = kind, split
        self.blocks = nn.Sequential(*islice(model.get_submodule("blocks").children(), split.blocks, None))
        if kind == "vit":
            self.last = model.get_submodule("norm")
        else:
            self.last = nn.Sequential(model.get_submodule("conv_head"), model.get_submodule("bn2"))
        self.train(model.training)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the backbone's last tokens, prefix (B, P, F) and patches (B, N, F), of tokens (B, T, C)."""
        if self.kind == "vit":
            last = self.last(self.blocks(tokens))
            return last[:, : self.split.prefix], last[:, self.split.prefix :]
        # A view in channels-last layout, which the optimised convolutions expect.
        side = self.split.side
        maps = tokens.reshape(len(tokens), side, side, tokens.shape[2]).permute(0, 3, 1, 2)
        last = self.last(self.blocks(maps)).flatten(2).transpose(1, 2)
        return last[:, :0], last
