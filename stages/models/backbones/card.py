"""What a recipe states of a backbone: outputs, weights, preprocessing; its weights are not loaded.

PyTorch and timm take seconds to import. A named backbone with weights from a file needs neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.images.preprocess import Preprocess
from stages.models.backbones.outputs import output_lengths
from stages.models.backbones.registry import BACKBONES, spec_of
from stages.models.backbones.spec import BILINEAR, PYTHON, pooled_among, pooling_and_layer, split_blocks
from stages.models.backbones.weights import RANDOM, file_id, find_weights, state_id

if TYPE_CHECKING:
    from stages.models.backbones.split import SplitPoint


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
        """What a recipe states: the preprocessing, the digest of a function, and how bilinear is scaled."""
        stated = self.preprocess.as_dict()
        if self.source_sha256:
            stated["source_sha256"] = self.source_sha256
        if any(pooling_and_layer(output)[0] == BILINEAR for output in pooled_among(self.outputs)):
            stated["bilinear"] = "unit length"  # earlier versions stored it as it was, under the same name
        return stated

    @property
    def layers(self) -> set[int]:
        """Layers whose outputs are stored, counted from the last one, -1, backwards."""
        return {pooling_and_layer(output)[1] for output in pooled_among(self.outputs)}

    @property
    def split(self) -> SplitPoint | None:
        """Where it is split, if one of its outputs is the tokens after its first blocks."""
        from stages.models.backbones.split import split_point

        splits = [blocks for blocks in map(split_blocks, self.outputs) if blocks is not None]
        return split_point(self.name, self.image_size, splits[0]) if splits else None


def describe_backbone(
    name: str,
    *,
    weights: str,
    image_size: int,
    outputs: str | Sequence[str] = "default",
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
        from stages.models.backbones.create import require_own_weights
        from stages.models.backbones.function import describe_function

        require_own_weights(name, weights)
        made = describe_function(name)
        weights_id, source_sha256 = made.weights_id, made.source_sha256
    elif weights == RANDOM:
        weights_id = _random_id(name, image_size)
    else:
        weights_id = file_id(find_weights(name, spec_of(name).source, weights))
    setting = weights if weights == RANDOM else Path(weights).name
    preprocess = preprocess_for(name, image_size)
    return BackboneCard(name, setting, weights_id, image_size, lengths, preprocess, source_sha256)


def recorded_preprocess(card: BackboneCard, recorded: Mapping[str, Any]) -> Preprocess:
    """Return the preprocessing in a recipe; of a named backbone, only `extract.decode` changes it."""
    if card.name not in BACKBONES:
        return Preprocess.from_dict(recorded)
    least = recorded.get("decode_at_least", card.preprocess.decode_at_least)
    return replace(card.preprocess, decode_at_least=least)


def preprocess_for(name: str, image_size: int) -> Preprocess:
    """Return a backbone's preprocessing for images of that side in pixels."""
    return spec_of(name).preprocess(image_size)


@lru_cache(maxsize=8)
def _random_id(name: str, image_size: int) -> str:
    from stages.models.backbones.create import random_model

    return state_id(random_model(name, image_size))
