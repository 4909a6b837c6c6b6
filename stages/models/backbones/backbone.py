"""Frozen backbones: pixels in, pooled features out (4.10, 4.11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from stages.errors import ConfigError
from stages.images.preprocess import Preprocess
from stages.models.backbones.create import load_model, random_model
from stages.models.backbones.optimise import fuse_activations, keep_freed_memory, optimise
from stages.models.backbones.pooling import pooled
from stages.models.backbones.registry import BACKBONES, pooled_among, require_image_size, spec_of
from stages.models.backbones.split import (
    BlocksAfterSplit,
    SplitPoint,
    split_blocks,
    split_point,
    tokens_at_split,
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
    """

    name: str
    weights: str
    weights_id: str
    image_size: int
    outputs: dict[str, int]
    preprocess: Preprocess

    @property
    def split(self) -> SplitPoint | None:
        """Where it is split, if one of its outputs is the tokens after its first blocks."""
        splits = [blocks for blocks in map(split_blocks, self.outputs) if blocks is not None]
        return split_point(self.name, self.image_size, splits[0]) if splits else None


class Backbone(nn.Module):
    """A frozen backbone that gives several outputs in one pass.

    Outputs: its normalised last tokens (for a CNN, its last feature map), pooled by
    `stages.models.backbones.pooling.pooled`: ``cls``, ``avg``, ``gem``; and, split after K blocks,
    ``cut<K>``: all tokens that leave them, as one row of T * C values
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
        self.kind = BACKBONES[card.name].kind
        self.model = optimise(model.eval(), kind=self.kind).to(self.dtype)
        self.after_split = None if card.split is None else BlocksAfterSplit(self.model, self.kind, card.split)
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
        names = pooled_among(self.outputs)
        if self.after_split is None:
            return pooled(names, *self._last_tokens(images))
        split = self.after_split.split
        tokens = tokens_at_split(self.model, self.kind, images, split.blocks)
        features = pooled(names, *self.after_split(tokens)) if names else {}
        return features | {split.name: tokens.flatten(1).float()}

    def _last_tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return prefix (B, P, F) and patches (B, N, F) of normalised images."""
        tokens = self.model.forward_features(images)  # type: ignore[operator]
        if self.kind == "cnn":
            tokens = tokens.flatten(2).transpose(1, 2)
        prefix = BACKBONES[self.name].prefix
        return tokens[:, :prefix], tokens[:, prefix:]


def describe_backbone(
    name: str, *, weights: str, image_size: int, outputs: str | Sequence[str] = "default"
) -> BackboneCard:
    """Describe a backbone without loading it.

    Raises
    ------
    ConfigError
        If there is no such backbone or output, or the image size does not suit it.
    WeightsError
        If the weights are not available.
    """
    lengths = _lengths(name, image_size, outputs)
    if weights == RANDOM:
        weights_id = _random_id(name, image_size)
    else:
        weights_id = file_id(find_weights(name, BACKBONES[name].source, weights))
    setting = weights if weights == RANDOM else Path(weights).name
    return BackboneCard(name, setting, weights_id, image_size, lengths, preprocess_for(name, image_size))


def _lengths(name: str, image_size: int, outputs: str | Sequence[str]) -> dict[str, int]:
    """Return the length of each chosen output."""
    spec = spec_of(name)
    require_image_size(name, image_size)
    chosen = spec.default
    if outputs != "default":
        chosen = tuple([outputs] if isinstance(outputs, str) else outputs)
    splits = {output: blocks for output in chosen if (blocks := split_blocks(output)) is not None}
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= {*spec.choices, *splits}:
        raise ConfigError(
            f"extract.outputs is {', '.join(chosen) or 'empty'}: "
            f"{name} offers {', '.join(spec.choices)}, each once"
        )
    if len(splits) > 1:
        raise ConfigError(f"{name} is asked for {' and '.join(splits)}: expected one cut at most")
    tokens = {output: split_point(name, image_size, blocks).length for output, blocks in splits.items()}
    return dict.fromkeys(chosen, spec.length) | tokens


def preprocess_for(name: str, image_size: int) -> Preprocess:
    """Return a backbone's preprocessing: the shorter side is resized to 256 / 224 of the image size."""
    spec = spec_of(name)
    resize = round(image_size * 256 / 224)
    return Preprocess(image_size, resize, "bicubic", 2 * resize, spec.mean, spec.std)


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
        One of `BACKBONES`.
    weights : str
        "pretrained", a checkpoint's path, or "random" (seeded; for tests).
    image_size : int
        Side of the input in pixels.
    outputs : "default" or sequence of str
        Pooled outputs, by default cls and avg for a ViT, avg for a CNN; and at most one ``cut<K>``.
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
    backbone = Backbone(card, load_model(name, weights, image_size), precision=precision, compiled=compiled)
    if backbone.kind == "vit" and torch.device(device).type == "cuda" and precision != "float32":
        fuse_activations(backbone.model)
    return backbone.to(device)


def weights_reachable(name: str, weights: str) -> bool:
    """Whether a backbone's weights are available, checked without downloading them."""
    return reachable(spec_of(name).source, weights)


@lru_cache(maxsize=8)
def _random_id(name: str, image_size: int) -> str:
    return state_id(random_model(name, image_size))
