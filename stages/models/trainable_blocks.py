"""The trained tail: what was cut off a backbone, and an aggregator, trained from cached tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cache.recipe import Recipe
from stages.errors import ConfigError, WeightsError
from stages.models.aggregators.factory import Aggregator, AggregatorSettings, make_aggregator
from stages.models.backbones.backbone import describe_backbone, load_model
from stages.models.backbones.create import empty_model
from stages.models.backbones.pooling import pooled
from stages.models.backbones.registry import BACKBONES
from stages.models.backbones.split import Rest, cut_named, cut_of

_ROWS_AT_ONCE = 128
"""Rows that pass through together where nothing is learned: bounds the memory of what they activate."""


@dataclass(frozen=True)
class TailSettings:
    """What a tail is made of; with its tensors all that it takes to build it again.

    Attributes
    ----------
    backbone : str
        Name of the backbone that was cut.
    image_size : int
        Side in pixels of what it saw.
    blocks : int
        Blocks before the cut.
    outputs : tuple of str
        Pooled outputs that make the feature, where the aggregator is ``pooled``.
    aggregator : AggregatorSettings
        How local features become one feature.
    """

    backbone: str
    image_size: int
    blocks: int
    outputs: tuple[str, ...]
    aggregator: AggregatorSettings

    @property
    def source(self) -> str:
        """Name of the output, in a store, that it starts from."""
        return cut_of(self.backbone, self.image_size, self.blocks).name

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of every field."""
        return {**asdict(self), "outputs": list(self.outputs)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TailSettings:
        """Return what `to_dict` was made of."""
        held = {**values, "outputs": tuple(values["outputs"])}
        return cls(**{**held, "aggregator": AggregatorSettings(**values["aggregator"])})


class TrainableBlocks(nn.Module):
    """The blocks after the cut and an aggregator: cached tensor in, feature out (method, section 9).

    Normalisations keep the statistics they were published with: the module stays in evaluation mode,
    and its weights, those of normalisations among them, are trained.

    Parameters
    ----------
    settings : TailSettings
        What it is made of.
    model : nn.Module
        The backbone, as timm has it; the part after the cut is taken.
    """

    def __init__(self, settings: TailSettings, model: nn.Module) -> None:
        super().__init__()
        self.settings = settings
        spec = BACKBONES[settings.backbone]
        self.cut = cut_of(settings.backbone, settings.image_size, settings.blocks)
        self.rest = Rest(model, spec.kind, self.cut)
        if spec.kind == "cnn":  # as its input lies
            self.rest.to(memory_format=torch.channels_last)
        self.aggregator: Aggregator | None = None
        self.length = spec.length * len(settings.outputs)
        if settings.aggregator.kind != "pooled":
            self.aggregator = make_aggregator(settings.aggregator, spec.length, self.cut.prefix)
            self.length = self.aggregator.length
        self.eval()

    def forward(self, tensors: Tensor) -> Tensor:
        """Return features (B, F) float32 of cached tensors (B, T * C)."""
        prefix, patches = self.local(tensors)
        if self.aggregator is not None:
            return self.aggregator(prefix, patches)  # type: ignore[no-any-return]
        found = pooled(self.settings.outputs, prefix, patches)
        return torch.cat([found[name] for name in self.settings.outputs], dim=1)

    @torch.no_grad()
    def in_parts(self, tensors: Tensor) -> Tensor:
        """Return the features of any number of cached tensors on any device, without gradients."""
        return torch.cat([self(part) for part in self._parts(tensors)])

    @torch.no_grad()
    def local_in_parts(self, tensors: Tensor) -> Iterator[Tensor]:
        """Yield the local features (b, N, C) of cached tensors (B, T * C) on any device, part by part."""
        for part in self._parts(tensors):
            yield self.local(part)[1]

    def _parts(self, tensors: Tensor) -> Iterator[Tensor]:
        device = next(self.parameters()).device
        return (part.to(device) for part in torch.split(tensors, _ROWS_AT_ONCE))

    def local(self, tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prefix tokens (B, P, C) and the local features (B, N, C) of cached tensors."""
        tokens = tensors.float().view(len(tensors), self.cut.tokens, self.cut.channels)
        prefix, patches = self.rest(tokens)
        return prefix, patches


def tail_settings(recipe: Recipe, outputs: tuple[str, ...], aggregator: AggregatorSettings) -> TailSettings:
    """Return the settings of the tail that starts where the features of a recipe were cut.

    Raises
    ------
    ConfigError
        If they were not cut, or no output is left to pool.
    """
    cuts = [blocks for name in recipe.outputs if (blocks := cut_named(name)) is not None]
    if not cuts:
        raise ConfigError(
            "train.tail is true, but the features were extracted without the tensor it starts from: "
            "set extract.cut, such as 4 for efficientnet_lite0 or 10 for dinov2_vits14, and run "
            "`pipeline extract`, or set train.tail to false"
        )
    return TailSettings(recipe.backbone, recipe.image_size, cuts[0], outputs, aggregator)


def untrained_tail(settings: TailSettings) -> TrainableBlocks:
    """Return a tail whose weights are still to be filled in."""
    with torch.device("meta"):
        tail = TrainableBlocks(settings, empty_model(settings.backbone, settings.image_size))
    return tail.to_empty(device="cpu")


def pretrained_tail(settings: TailSettings, recipe: Recipe, weights: str | None) -> TrainableBlocks:
    """Return a tail with the weights that the backbone has there; those of an aggregator are random.

    Parameters
    ----------
    settings : TailSettings
        What it is made of.
    recipe : Recipe
        Of the features that it is trained on.
    weights : str or None
        As `extract.weights`; None: as the recipe names them.

    Raises
    ------
    WeightsError
        If the weights cannot be had or are not those that made the features.
    """
    name, size = settings.backbone, settings.image_size
    weights = recipe.weights if weights is None else weights
    card = describe_backbone(name, weights=weights, image_size=size)
    if card.weights_id != recipe.weights_id:
        raise WeightsError(
            f"extract.weights is {weights!r} (SHA-256 {card.weights_id[:12]}...), but the features were made "
            f"with {recipe.weights!r} ({recipe.weights_id[:12]}...): the tail goes on from those weights, "
            "name their file in extract.weights"
        )
    return TrainableBlocks(settings, load_model(name, weights, size))
