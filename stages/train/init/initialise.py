"""First weights of a run, computed from the features it trains on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from stages.models.localiser.localiser import Localiser
from stages.models.trainable_blocks import TrainableBlocks
from stages.train.config import TrainConfig
from stages.train.data.source import Block, FeatureSource, TrainingSet
from stages.train.init.pca import (
    MOST_ROWS,
    class_means,
    moments,
    principal_components,
    sample_rows,
    standardise,
    store_moments,
)
from stages.train.inputs import TrainInputs

TAIL_SAMPLE_ROWS = 1 << 12
"""At most this many images are passed through a tail to start its aggregator and the components."""
_LOCAL_FEATURES = 16
"""Local features drawn of each of these images."""


def initialise(
    inputs: TrainInputs,
    localiser: Localiser,
    source: FeatureSource,
    resident: TrainingSet | None,
    groups: tuple[int, ...],
) -> None:
    """Set the first weights of the localiser in place; a tail's blocks keep their pretrained ones.

    Projection and aggregator get new weights only if they are trained, prototypes those of `groups`.
    `resident` are the features in memory, unless they are streamed from `source`.
    """
    config, features = inputs.config, source if resident is None else resident
    if inputs.train_projection and localiser.tail is not None:
        _start_behind_tail(localiser.tail, inputs, localiser, features, source.images)
    elif inputs.train_projection:
        mean_and_deviation = (
            store_moments(source) if resident is None else moments(resident.blocks(MOST_ROWS))
        )
        rows = sample_rows(localiser.projection.weight.shape[1])
        _start_projection(config, localiser, mean_and_deviation, features.blocks(rows))
    if config.initial_weights != "random":
        class_means(localiser, features.blocks(), groups)


def _start_projection(
    config: TrainConfig,
    localiser: Localiser,
    mean_and_deviation: tuple[Tensor, Tensor],
    sample: Iterable[Block],
) -> None:
    if config.standardise:
        standardise(localiser.projection, *mean_and_deviation)
    if config.initial_weights != "random":
        whiten = config.initial_weights == "whitened"
        principal_components(localiser.projection, sample, whiten=whiten)


def _start_behind_tail(
    tail: TrainableBlocks,
    inputs: TrainInputs,
    localiser: Localiser,
    features: FeatureSource | TrainingSet,
    images: int,
) -> None:
    """Set the aggregator's weights, then the projection's; the same rows are used wherever features wait."""
    config, stride = inputs.config, max(1, -(-images // TAIL_SAMPLE_ROWS))
    if tail.aggregator is not None:
        local = _local_features(tail, _every(features.blocks(), stride), inputs.seed)
        tail.aggregator.begin(local, inputs.seed)
    sample: list[Block] = []

    def through_tail() -> Iterator[Block]:
        rows = 0
        for stored, classes in features.blocks():
            computed = localiser.through_tail(stored)
            some, their_classes = _of_block((computed, classes), rows, stride)
            sample.append((some.clone(), their_classes))  # a view would keep the whole block in memory
            rows += len(computed)
            yield computed, classes

    mean, deviation = moments(through_tail())
    if config.aggregator.kind in ("netvlad", "salad"):
        # Clusters that these images rarely meet would get a huge gain for good: one gain for all components.
        deviation = deviation.square().mean().sqrt().expand_as(deviation)
    _start_projection(config, localiser, (mean, deviation), sample)


def _every(blocks: Iterable[Block], stride: int) -> Iterator[Block]:
    """Yield every stride-th row, counted over all blocks."""
    rows = 0
    for block in blocks:
        yield _of_block(block, rows, stride)
        rows += len(block[0])


def _of_block(block: Block, before: int, stride: int) -> Block:
    """Return every stride-th row of a block that has `before` rows in front of it, as views."""
    features, classes = block
    return features[-before % stride :: stride], classes[-before % stride :: stride]


@torch.no_grad()
def _local_features(tail: TrainableBlocks, blocks: Iterable[Block], seed: int) -> Tensor:
    """Return some local features of each image behind a tail's blocks, (n, C), drawn without repeats."""
    random, parts = torch.Generator().manual_seed(seed), []
    for features, _ in blocks:
        for patches in tail.local_in_parts(features[:, -tail.split.length :]):
            order = torch.rand(patches.shape[:2], generator=random)
            drawn = order.topk(min(_LOCAL_FEATURES, patches.shape[1]), dim=1).indices.unsqueeze(2)
            parts.append(patches.float().cpu().take_along_dim(drawn, dim=1).flatten(0, 1))
    return torch.cat(parts)
