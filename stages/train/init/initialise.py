"""What a run begins with: the first weights, found from the features it trains on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from stages.models.localiser.localiser import Localiser
from stages.models.trainable_blocks import TrainableBlocks
from stages.train.config import TrainConfig
from stages.train.data.source import Block, FeatureSource, TrainingSet
from stages.train.init.pca import (
    SAMPLE_ROWS,
    class_means,
    moments,
    principal_components,
    standardise,
    store_moments,
)

TAIL_SAMPLE_ROWS = 1 << 12
"""Images behind a tail that its aggregator and the components are estimated from, at most."""
_LOCAL_FEATURES = 16
"""Local features of each of them."""
_LEAST_SHARE = 0.02
"""Of the usual deviation: a component that varies less is silent, and training the tail may wake it."""


def initialise(
    config: TrainConfig,
    localiser: Localiser,
    source: FeatureSource,
    resident: TrainingSet | None,
    groups: tuple[int, ...],
    *,
    whole: bool,
    seed: int,
) -> None:
    """Set the first weights; tail's and projection's only if the whole localiser is trained.

    Parameters
    ----------
    config : TrainConfig
        Which weights.
    localiser : Localiser
        Its weights are set in place; those of a tail's blocks stay.
    source : FeatureSource
        The features.
    resident : TrainingSet or None
        The same in memory, unless they are streamed.
    groups : tuple of int
        Groups to train.
    whole : bool
        Whether tail and projection are trained.
    seed : int
        Decides what an aggregator begins with.
    """
    features = source if resident is None else resident
    if whole and localiser.tail is not None:
        _begin_behind(localiser.tail, config, localiser, features, images=source.images, seed=seed)
    elif whole:
        found = store_moments(source) if resident is None else moments(resident.blocks(SAMPLE_ROWS))
        _begin_projection(config, localiser, found, features.blocks(SAMPLE_ROWS))
    if config.initial_weights != "random":
        class_means(localiser, features.blocks(), groups)


def _begin_projection(
    config: TrainConfig, localiser: Localiser, found: tuple[Tensor, Tensor], sample: Iterable[Block]
) -> None:
    if config.standardise:
        standardise(localiser.projection, *found)
    if config.initial_weights != "random":
        whiten = config.initial_weights == "whitened"
        principal_components(localiser.projection, sample, whiten=whiten)


def _begin_behind(
    tail: TrainableBlocks,
    config: TrainConfig,
    localiser: Localiser,
    features: FeatureSource | TrainingSet,
    *,
    images: int,
    seed: int,
) -> None:
    """Begin a tail's aggregator, then the projection behind it; wherever the features wait, from the same."""
    stride = max(1, -(-images // TAIL_SAMPLE_ROWS))
    if tail.aggregator is not None:
        tail.aggregator.begin(_local_features(tail, _every(features.blocks(), stride), seed), seed)
    kept: list[Block] = []

    def passing() -> Iterator[Block]:
        rows = 0
        for given, classes in features.blocks():
            found = localiser.condensed(given)
            sample, their_classes = _of_block((found, classes), rows, stride)
            kept.append((sample.clone(), their_classes))  # a view would keep the whole block in memory
            rows += len(found)
            yield found, classes

    mean, deviation = moments(passing())
    usual = deviation.square().mean().sqrt()
    if config.aggregator.kind in ("netvlad", "salad"):
        # Components of clusters that these images hardly met are small for good: one gain for all.
        deviation = usual.expand_as(deviation)
    _begin_projection(config, localiser, (mean, deviation.clamp_min(_LEAST_SHARE * usual)), kept)


def _every(blocks: Iterable[Block], stride: int) -> Iterator[Block]:
    """Yield every so many rows of blocks, counted over all of them."""
    rows = 0
    for block in blocks:
        yield _of_block(block, rows, stride)
        rows += len(block[0])


def _of_block(block: Block, before: int, stride: int) -> Block:
    """Return every so many rows of a block with so many rows before it, as views."""
    features, classes = block
    return features[-before % stride :: stride], classes[-before % stride :: stride]


@torch.no_grad()
def _local_features(tail: TrainableBlocks, blocks: Iterable[Block], seed: int) -> Tensor:
    """Return some local features of each image behind a tail's blocks, (n, C), drawn without repeats."""
    random, found = torch.Generator().manual_seed(seed), []
    for features, _ in blocks:
        for patches in tail.local_in_parts(features[:, -tail.cut.length :]):
            order = torch.rand(patches.shape[:2], generator=random)
            drawn = order.topk(min(_LOCAL_FEATURES, patches.shape[1]), dim=1).indices.unsqueeze(2)
            found.append(patches.float().cpu().take_along_dim(drawn, dim=1).flatten(0, 1))
    return torch.cat(found)
