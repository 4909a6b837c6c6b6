"""Frozen backbones: pixels in, pooled features out (4.10, 4.11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stages.errors import ConfigError
from stages.images.preprocess import Preprocess
from stages.models.backbones.block_order import in_order
from stages.models.backbones.create import load_model, random_model, require_own_weights
from stages.models.backbones.function import ONLY_OUTPUT, describe_function
from stages.models.backbones.optimise import (
    fuse_activations,
    keep_freed_memory,
    optimise,
    optimise_if_equal,
)
from stages.models.backbones.outputs import output_lengths
from stages.models.backbones.pooling import pooled
from stages.models.backbones.registry import BACKBONES, spec_of
from stages.models.backbones.spec import PYTHON, pooled_among, pooling_and_layer, split_blocks
from stages.models.backbones.split import (
    BlocksAfterSplit,
    SplitPoint,
    as_tokens,
    split_point,
    tokens_at_split,
    tokens_of_layers,
)
from stages.models.backbones.weights import RANDOM, file_id, find_weights, reachable, state_id

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class BackboneCard:
    """What a recipe states of a backbone, known without loading it.

    Attributes
    ----------
    weights : str
        The setting; of a path, the file name.
    weights_id : str
        SHA-256 of the weights.
    outputs : dict of str to int
        Length F of each output.
    source_sha256 : str
        SHA-256 of the source file of a function; empty for other backbones.
    """

    name: str
    weights: str
    weights_id: str
    image_size: int
    outputs: dict[str, int]
    preprocess: Preprocess
    source_sha256: str = ""

    @property
    def preprocessing(self) -> dict[str, Any]:
        """The preprocessing as a recipe states it, and the digest of the code of a function."""
        source = {"source_sha256": self.source_sha256} if self.source_sha256 else {}
        return {**self.preprocess.as_dict(), **source}

    @property
    def layers(self) -> set[int]:
        """Layers whose outputs are stored, counted from the last one, -1, backwards."""
        return {pooling_and_layer(output)[1] for output in pooled_among(self.outputs)}

    @property
    def split(self) -> SplitPoint | None:
        """Where it is split, if one of its outputs is the tokens after its first blocks."""
        splits = [blocks for blocks in map(split_blocks, self.outputs) if blocks is not None]
        return split_point(self.name, self.image_size, splits[0]) if splits else None


class Backbone(nn.Module):
    """A frozen backbone that gives several outputs in one pass.

    Outputs: its normalised last tokens (for a CNN, its last feature map), pooled by
    `stages.models.backbones.pooling.pooled`: ``cls``, ``reg``, ``avg``, ``gem``; the same of inner layers,
    such as ``avg@-2``; and, split after K blocks, ``cut<K>``: all tokens that leave them, as one row of
    T * C values (`stages.models.backbones.split`). `load_backbone` makes one.
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
        self._pass = torch.compile(self._features) if compiled else self._features
        for field in ("mean", "std"):
            values = torch.tensor(getattr(card.preprocess, field)).reshape(1, 3, 1, 1)
            self.register_buffer(f"pixel_{field}", values * 255, persistent=False)
        self.requires_grad_(False).eval()

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

    def _features(self, pixels: Tensor) -> dict[str, Tensor]:
        mean, std = self.get_buffer("pixel_mean"), self.get_buffer("pixel_std")
        # Pixels come channels last and stay so: convolutions are faster that way.
        images = ((pixels.permute(0, 3, 1, 2) - mean) / std).to(self.dtype)
        if self.kind == "vectors":
            vectors = self.model(images)
            vectors = {ONLY_OUTPUT: vectors} if isinstance(vectors, Tensor) else vectors
            return {name: vectors[name].float() for name in self.outputs}
        if self.card.layers - {-1}:
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
            prefix, patches = self._divided(of_layer[layer])
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
        If inner layers or a cut are wanted, but the blocks do not follow one another.
    """
    spec = spec_of(card.name)
    if card.name in BACKBONES:
        return optimise(model, kind=spec.kind)
    if card.name.startswith(PYTHON):
        return model
    noise = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, card.image_size, card.image_size, generator=noise)
    with torch.inference_mode():
        if (card.layers - {-1} or card.split) and not in_order(model, spec.kind, images):
            raise ConfigError(
                f"the blocks of {card.name} do not follow one another: set extract.layers to last and "
                "extract.cut to none"
            )
    return optimise_if_equal(model, kind=spec.kind, images=images)


def describe_backbone(
    name: str,
    *,
    weights: str,
    image_size: int,
    outputs: str | Sequence[str] = "default",
    recorded: Mapping[str, Any] | None = None,
) -> BackboneCard:
    """Describe a backbone without loading it; see `load_backbone` for the parameters.

    Raises
    ------
    ConfigError
        If there is no such backbone or output, or the image size does not suit it.
    WeightsError
        If the weights are not available.
    """
    lengths = output_lengths(name, image_size, outputs)
    source_sha256 = ""
    if name.startswith(PYTHON):
        require_own_weights(name, weights)
        made = describe_function(name)
        weights_id, source_sha256 = made.weights_id, made.source_sha256
    elif weights == RANDOM:
        weights_id = _random_id(name, image_size)
    else:
        weights_id = file_id(find_weights(name, spec_of(name).source, weights))
    setting = weights if weights == RANDOM else Path(weights).name
    preprocess = preprocess_for(name, image_size)
    if recorded is not None and name not in BACKBONES:
        preprocess = Preprocess.from_dict(recorded)
    return BackboneCard(name, setting, weights_id, image_size, lengths, preprocess, source_sha256)


def preprocess_for(name: str, image_size: int) -> Preprocess:
    """Return a backbone's preprocessing for images of that side in pixels."""
    return spec_of(name).preprocess(image_size)


def load_backbone(
    name: str,
    *,
    weights: str,
    image_size: int,
    outputs: str | Sequence[str] = "default",
    device: str = "cpu",
    precision: str = "float32",
    compiled: bool = False,
    recorded: Mapping[str, Any] | None = None,
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
        Pooled outputs, by default cls and avg as far as there are both; and at most one ``cut<K>``.
    device : str
        Where to run, such as "cpu" or "cuda".
    precision : {"float32", "bfloat16", "float16"}
        Type of weights and activations.
    compiled : bool
        Whether to use torch.compile.
    recorded : mapping, optional
        Preprocessing in the recipe of existing features. It is used in place of what timm or a function
        states now; the named backbones have one preprocessing.

    Raises
    ------
    ConfigError
        If a setting does not suit the backbone.
    WeightsError
        If the weights are not available or do not fit.
    """
    if precision not in _PRECISIONS:
        raise ConfigError(f"extract.precision is {precision!r}: expected {' | '.join(_PRECISIONS)}")
    card = describe_backbone(name, weights=weights, image_size=image_size, outputs=outputs, recorded=recorded)
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


@lru_cache(maxsize=8)
def _random_id(name: str, image_size: int) -> str:
    return state_id(random_model(name, image_size))
