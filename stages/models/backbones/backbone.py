"""Frozen backbones: pixels in, pooled features out (4.10, 4.11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stages.errors import ConfigError
from stages.images.preprocess import Preprocess
from stages.models.backbones.block_order import in_order
from stages.models.backbones.card import BackboneCard, describe_backbone, recorded_preprocess
from stages.models.backbones.create import load_model
from stages.models.backbones.function import ONLY_OUTPUT
from stages.models.backbones.optimise import (
    fuse_activations,
    keep_freed_memory,
    optimise,
    optimise_if_equal,
)
from stages.models.backbones.pooling import pooled
from stages.models.backbones.registry import BACKBONES, spec_of
from stages.models.backbones.spec import BILINEAR, PYTHON, pooled_among, pooling_and_layer, split_blocks
from stages.models.backbones.split import (
    BlocksAfterSplit,
    as_tokens,
    tokens_at_split,
    tokens_of_layers,
)
from stages.models.backbones.weights import reachable

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Backbone(nn.Module):
    """A frozen backbone that gives several outputs in one pass.

    Outputs: its normalised last tokens (for a CNN, its last feature map), pooled by
    `stages.models.backbones.pooling.pooled`: ``cls``, ``reg``, ``avg``, ``gem``, and ``bilinear`` (for a
    CNN, of the map before its last convolution); the same of inner layers, such as ``avg@-2``; and, split
    after K blocks, ``cut<K>``: all tokens that leave them, as one row of T * C values
    (`stages.models.backbones.split`). `load_backbone` makes one.
    """

    def __init__(self, card: BackboneCard, model: nn.Module, *, precision: str, compiled: bool) -> None:
        super().__init__()
        self.card = card
        self.name = card.name
        self.image_size = card.image_size
        self.outputs = card.outputs
        self.weights_id = card.weights_id
        self.preprocess = card.preprocess
        self.dtype = _PRECISIONS[precision]
        self.spec = spec_of(card.name)
        self.kind = self.spec.kind
        self.model = _optimised(model.eval(), card).to(self.dtype)
        split = card.split
        self.after_split = None if split is None else BlocksAfterSplit(self.model, self.kind, split)
        self._pass = torch.compile(self.compute) if compiled else self.compute
        self._set_pixel_range(card.preprocess)
        self.requires_grad_(False).eval()

    def preprocess_as(self, recorded: Mapping[str, Any]) -> None:
        """Preprocess as a recipe states, see `recorded_preprocess`, whatever the model states now."""
        self.preprocess = recorded_preprocess(self.card, recorded)
        self._set_pixel_range(self.preprocess)

    def in_float32(self) -> Backbone:
        """Compute in float32 from now on, with the weights as they are; return self."""
        self.model.float()
        self.dtype = torch.float32
        return self

    def _set_pixel_range(self, preprocess: Preprocess) -> None:
        device = next(self.model.parameters()).device
        for field in ("mean", "std"):
            values = torch.tensor(getattr(preprocess, field), device=device).reshape(1, 3, 1, 1)
            self.register_buffer(f"pixel_{field}", values * 255, persistent=False)

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the outputs of a batch, on the backbone's device.

        Parameters
        ----------
        pixels : Tensor, (B, S, S, 3) uint8
            Preprocessed images, on any device.

        Returns
        -------
        dict of str to Tensor, (B, F) float32
        """
        # From pinned memory the copy to a GPU overlaps its work.
        return self._pass(pixels.to(self.get_buffer("pixel_mean").device, non_blocking=True))

    def compute(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the outputs of a batch on the backbone's device; see `forward`."""
        mean, std = self.get_buffer("pixel_mean"), self.get_buffer("pixel_std")
        # Pixels come channels last and stay so: convolutions are faster that way.
        images = ((pixels.permute(0, 3, 1, 2) - mean) / std).to(self.dtype)
        if self.kind == "vectors":
            vectors = self.model(images)
            vectors = {ONLY_OUTPUT: vectors} if isinstance(vectors, Tensor) else vectors
            return {name: vectors[name].float() for name in self.outputs}
        if self.card.layers - {-1} or BILINEAR in self.outputs:
            return self._features_of_layers(images)
        names, registers = pooled_among(self.outputs), self.spec.registers
        if self.after_split is None:
            return pooled(names, *self._last_tokens(images), registers)
        split = self.after_split.split
        tokens = tokens_at_split(self.model, self.kind, images, split.blocks)
        prefix, patches = self.after_split(tokens) if names else (tokens, tokens)
        features = pooled(names, prefix, patches, registers)
        return features | {split.name: tokens.flatten(1).float()}

    def _features_of_layers(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs of several layers, and the tokens at a split, from one pass."""
        of_layer, after_block = tokens_of_layers(self.model, self.kind, images, self.card.layers)
        features: dict[str, Tensor] = {}
        for output in self.outputs:
            blocks = split_blocks(output)
            if blocks is not None:
                features[output] = after_block[blocks].flatten(1).float()
                continue
            pooling, layer = pooling_and_layer(output)
            tokens = of_layer[layer]
            if output == BILINEAR and self.kind != "vit":  # second moments gain from values of both signs
                tokens = after_block[self.spec.blocks]
            prefix, patches = self._divided(tokens)
            features[output] = pooled([pooling], prefix, patches, registers=self.spec.registers)[pooling]
        return features

    def _last_tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return prefix (B, P, F) and patches (B, N, F) of normalised images."""
        function = self.name.startswith(PYTHON)
        features = self.model(images) if function else self.model.forward_features(images)  # type: ignore[operator]
        return self._divided(as_tokens(features, self.kind))

    def _divided(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return prefix and patches of tokens (B, T, F)."""
        return tokens[:, : self.spec.prefix], tokens[:, self.spec.prefix :]


def _optimised(model: nn.Module, card: BackboneCard) -> nn.Module:
    """Return a faster model where that is known, or found, to compute the same.

    Raises
    ------
    ConfigError
        If bilinear, inner layers or a cut are wanted, but the blocks do not follow one another.
    """
    spec = spec_of(card.name)
    if card.name in BACKBONES:
        return optimise(model, kind=spec.kind)
    if card.name.startswith(PYTHON):
        return model
    noise = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, card.image_size, card.image_size, generator=noise)
    with torch.inference_mode():
        chained = card.layers - {-1} or card.split or BILINEAR in card.outputs
        if chained and not in_order(model, spec.kind, images):
            raise ConfigError(
                f"the blocks of {card.name} do not follow one another: set extract.outputs to [avg], "
                "extract.layers to last and extract.cut to none"
            )
    return optimise_if_equal(model, kind=spec.kind, images=images)


def load_backbone(
    name: str,
    *,
    weights: str,
    image_size: int,
    outputs: str | Sequence[str] = "default",
    device: str = "cpu",
    precision: str = "float32",
    compiled: bool = False,
) -> Backbone:
    """Return a frozen backbone, ready to run.

    Parameters
    ----------
    name : str
        One of `BACKBONES`, ``timm:MODEL[.TAG]``, or ``python:MODULE:FUNCTION``.
    weights : str
        "pretrained", a checkpoint's path, or "random" (seeded; for tests).
    image_size : int
        Side of the input in pixels.
    outputs : "default" or sequence of str
        Pooled outputs, by default those of a new project; and at most one ``cut<K>``.
    device : str
        Where to run, such as "cpu" or "cuda".
    precision : {"float32", "bfloat16", "float16"}
        Type of weights and activations.
    compiled : bool
        Whether to use torch.compile.

    Raises
    ------
    ConfigError
        If a setting does not suit the backbone.
    WeightsError
        If the weights are not available or do not fit.
    """
    if precision not in _PRECISIONS:
        raise ConfigError(f"extract.precision is {precision!r}: expected {' | '.join(_PRECISIONS)}")
    card = describe_backbone(name, weights=weights, image_size=image_size, outputs=outputs)
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    model = load_model(name, weights, image_size)
    backbone = Backbone(card, model, precision=precision, compiled=compiled)
    if (
        backbone.kind == "vit"
        and hasattr(model, "blocks")
        and torch.device(device).type == "cuda"
        and precision != "float32"
    ):
        fuse_activations(backbone.model)
    return backbone.to(device)


def weights_reachable(name: str, weights: str) -> bool:
    """Whether a backbone's weights are available, checked without downloading them."""
    return reachable(spec_of(name).source, weights)
