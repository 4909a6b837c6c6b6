"""A backbone cut in two: the trunk, whose last tensor can be cached, and the rest, which can be trained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from math import isqrt

import torch
from torch import Tensor, nn

from stages.models.backbones.create import empty_model
from stages.models.backbones.registry import cut_named, cut_output, require_cut, require_image_size, spec_of

__all__ = ["Rest", "SplitPoint", "cut_named", "cut_of", "trunk"]


@dataclass(frozen=True)
class SplitPoint:
    """The tensor that leaves a backbone's first blocks, as tokens.

    Attributes
    ----------
    blocks : int
        Blocks (of a CNN: stages) before the cut.
    prefix : int
        Tokens that stand for no place: class token and registers; 0 for a CNN.
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
        """Length T * C of the tensor as one row."""
        return self.tokens * self.channels

    @property
    def name(self) -> str:
        """Name of the output it is stored as."""
        return cut_output(self.blocks)


def cut_of(backbone_name: str, image_size: int, blocks: int) -> SplitPoint:
    """Return the shape of what leaves a backbone's first blocks, without loading its weights.

    Raises
    ------
    ConfigError
        If there is no such backbone, or the image size or the number of blocks does not suit it.
    """
    spec = spec_of(backbone_name)
    require_image_size(backbone_name, image_size)
    require_cut(backbone_name, blocks)
    if spec.kind == "vit":  # every block gives what it takes
        return SplitPoint(blocks, spec.prefix, image_size // spec.step, spec.length)
    tokens, channels = _feature_map(backbone_name, image_size, blocks)
    return SplitPoint(blocks, 0, isqrt(tokens), channels)


@lru_cache(maxsize=8)
def _feature_map(backbone_name: str, image_size: int, blocks: int) -> tuple[int, int]:
    """Return positions and channels of a CNN's feature map, by a pass that computes shapes alone."""
    with torch.device("meta"):
        model = empty_model(backbone_name, image_size).eval()
        _, tokens, channels = trunk(model, "cnn", torch.empty(1, 3, image_size, image_size), blocks).shape
    return tokens, channels


def trunk(model: nn.Module, kind: str, images: Tensor, blocks: int) -> Tensor:
    """Return what leaves the first blocks of a backbone.

    Parameters
    ----------
    model : nn.Module
        The timm model, made quick or not.
    kind : {"vit", "cnn"}
        Transformer or convolutional network.
    images : Tensor, (B, 3, S, S)
        Normalised images.
    blocks : int
        How many blocks.

    Returns
    -------
    Tensor, (B, T, C)
        Tokens: class token and registers first, then the patches row by row; of a CNN, the positions
        of its feature map row by row.
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


class Rest(nn.Module):
    """What comes after a cut: the blocks left, then the last layers.

    Its modules are the model's own: what trains one trains the other.

    Parameters
    ----------
    model : nn.Module
        The timm model, made quick or not.
    kind : {"vit", "cnn"}
        Transformer or convolutional network.
    cut : SplitPoint
        Where it was cut.

    Attributes
    ----------
    cut : SplitPoint
        As given.
    blocks : nn.Sequential
        The blocks after the cut; none if the cut is after the last one.
    last : nn.Module
        The final normalisation; of a CNN, its last convolution and what follows it.
    """

    def __init__(self, model: nn.Module, kind: str, cut: SplitPoint) -> None:
        super().__init__()
        self.kind, self.cut = kind, cut
        self.blocks = nn.Sequential(*islice(model.get_submodule("blocks").children(), cut.blocks, None))
        if kind == "vit":
            self.last = model.get_submodule("norm")
        else:
            self.last = nn.Sequential(model.get_submodule("conv_head"), model.get_submodule("bn2"))
        self.train(model.training)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the backbone's last tokens: prefix (B, P, F) and patches (B, N, F).

        Parameters
        ----------
        tokens : Tensor, (B, T, C)
            What left the trunk, of the model's dtype.
        """
        if self.kind == "vit":
            found = self.last(self.blocks(tokens))
            return found[:, : self.cut.prefix], found[:, self.cut.prefix :]
        # A view whose channels lie side by side, as quick convolutions want them.
        maps = tokens.reshape(len(tokens), self.cut.side, self.cut.side, tokens.shape[2]).permute(0, 3, 1, 2)
        found = self.last(self.blocks(maps)).flatten(2).transpose(1, 2)
        return found[:, :0], found
