"""Trainable blocks: a backbone's last blocks and an aggregator, trained from cached tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cache.recipe import Recipe
from stages.errors import ConfigError, WeightsError
from stages.models.aggregators.factory import Aggregator, AggregatorSettings, make_aggregator
from stages.models.backbones.card import describe_backbone
from stages.models.backbones.create import empty_model, load_model
from stages.models.backbones.pooling import pooled
from stages.models.backbones.registry import BACKBONES, spec_of
from stages.models.backbones.spec import BILINEAR, pooling_and_layer, split_blocks
from stages.models.backbones.split import BlocksAfterSplit, split_point

_ROWS_AT_ONCE = 128
"""Rows of one pass without gradients: bounds the memory of the activations."""


@dataclass(frozen=True)
class TrainableBlocksSettings:
    """All that rebuilds trainable blocks from their tensors; stored in a localiser.

    Attributes
    ----------
    blocks : int
        Blocks of the backbone before the split.
    outputs : tuple of str
        Pooled outputs that make the feature if the aggregator is ``pooled``.
    """

    backbone: str
    image_size: int
    blocks: int
    outputs: tuple[str, ...]
    aggregator: AggregatorSettings

    @classmethod
    def of(
        cls, recipe: Recipe, outputs: tuple[str, ...], aggregator: AggregatorSettings
    ) -> TrainableBlocksSettings:
        """Return the settings of blocks that start from the tokens stored with some features.

        Trained blocks can give neither bilinear nor inner layers: they give the other ones of `outputs`, or
        ``avg``.

        Raises
        ------
        ConfigError
            If no tokens are stored.
        """
        splits = [blocks for name in recipe.outputs if (blocks := split_blocks(name)) is not None]
        if not splits:
            raise ConfigError(
                "train.tail is true, but the features were extracted without the tokens it starts from: "
                "set extract.cut, such as 4 for efficientnet_lite0 or 10 for dinov2_vits14, and run "
                "`pipeline extract`, or set train.tail to false"
            )
        last = [name for name in outputs if pooling_and_layer(name)[1] == -1]
        given = tuple(name for name in last if name != BILINEAR) or ("avg",)
        return cls(recipe.backbone, recipe.image_size, splits[0], given, aggregator)

    @property
    def source(self) -> str:
        """Name of the stored output that the blocks start from."""
        return split_point(self.backbone, self.image_size, self.blocks).name

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of every field."""
        return {**asdict(self), "outputs": list(self.outputs)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainableBlocksSettings:
        """Return the settings from the values of `to_dict`."""
        typed = {
            "outputs": tuple(values["outputs"]),
            "aggregator": AggregatorSettings(**values["aggregator"]),
        }
        return cls(**{**values, **typed})


class TrainableBlocks(nn.Module):
    """The blocks after the split and an aggregator: cached tokens in, feature out (method, section 9).

    The module stays in evaluation mode: normalisations keep their published statistics, while their
    weights are trained like all others. The blocks are taken from a timm model, not copied.
    """

    def __init__(self, settings: TrainableBlocksSettings, model: nn.Module) -> None:
        super().__init__()
        self.settings = settings
        self.spec = spec = spec_of(settings.backbone)
        self.split = split_point(settings.backbone, settings.image_size, settings.blocks)
        self.rest = BlocksAfterSplit(model, spec.kind, self.split)  # "rest" names tensors in localisers
        if spec.kind == "cnn":  # the layout of its input
            self.rest.to(memory_format=torch.channels_last)
        self.aggregator: Aggregator | None = None
        if settings.aggregator.kind == "pooled":
            self.length = sum(spec.lengths[output] for output in settings.outputs)
        else:
            self.aggregator = make_aggregator(settings.aggregator, spec.length, self.split.prefix)
            self.length = self.aggregator.length
        self.eval()

    @classmethod
    def empty(cls, settings: TrainableBlocksSettings) -> TrainableBlocks:
        """Return blocks whose tensors are still to be filled in."""
        if settings.backbone not in BACKBONES:  # buffers that no file stores, such as rotary positions
            return cls(settings, empty_model(settings.backbone, settings.image_size))
        with torch.device("meta"):
            blocks = cls(settings, empty_model(settings.backbone, settings.image_size))
        return blocks.to_empty(device="cpu")

    @classmethod
    def pretrained(
        cls, settings: TrainableBlocksSettings, recipe: Recipe, weights: str | None
    ) -> TrainableBlocks:
        """Return blocks with the backbone's weights; an aggregator's weights are random.

        `recipe` is that of the features; `weights` is the setting `extract.weights`, None: the recipe's.

        Raises
        ------
        WeightsError
            If the weights are not available or did not make the features.
        """
        name, size = settings.backbone, settings.image_size
        weights = recipe.weights if weights is None else weights
        card = describe_backbone(name, weights=weights, image_size=size)
        if card.weights_id != recipe.weights_id:
            raise WeightsError(
                f"extract.weights is {weights!r} (SHA-256 {card.weights_id[:12]}...), but the features were "
                f"made with {recipe.weights!r} ({recipe.weights_id[:12]}...): training continues from those "
                "weights, so set extract.weights to their file"
            )
        return cls(settings, load_model(name, weights, size))

    def forward(self, tensors: Tensor) -> Tensor:
        """Return features (B, F) float32 of cached tokens (B, T * C)."""
        prefix, patches = self.local(tensors)
        if self.aggregator is not None:
            return self.aggregator(prefix, patches)  # type: ignore[no-any-return]
        features = pooled(self.settings.outputs, prefix, patches, registers=self.spec.registers)
        return torch.cat([features[name] for name in self.settings.outputs], dim=1)

    def local(self, tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prefix tokens (B, P, C) and the local features (B, N, C) of cached tokens."""
        tokens = tensors.float().view(tensors.shape[0], self.split.tokens, self.split.channels)
        prefix, patches = self.rest(tokens)
        return prefix, patches

    @torch.no_grad()
    def in_parts(self, tensors: Tensor) -> Tensor:
        """Return the features of any number of cached tokens on any device, without gradients."""
        return torch.cat([self(part) for part in self._parts(tensors)])

    @torch.no_grad()
    def local_in_parts(self, tensors: Tensor) -> Iterator[Tensor]:
        """Yield the local features (b, N, C) of cached tokens (B, T * C) on any device, part by part."""
        for part in self._parts(tensors):
            yield self.local(part)[1]

    def _parts(self, tensors: Tensor) -> Iterator[Tensor]:
        device = next(self.parameters()).device
        return (part.to(device) for part in torch.split(tensors, _ROWS_AT_ONCE))
