"""First weights from the features: principal components for the projection, class means for the heads.

Heads that start at their classes' means, under a projection that keeps most of the variance, are a
nearest-mean classifier before the first step. Training then has little to unlearn, which matters most for
small classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import dask.base
import numpy as np
import numpy.typing as npt
import torch
from dask.delayed import delayed
from torch import Tensor
from torch.nn import functional

from stages.models.heads.heads import Projection
from stages.models.localiser.localiser import Localiser
from stages.train.data.source import Block, FeatureSource

MOST_ROWS = 1 << 17
"""Rows that moments and components are estimated from."""
_WIDE = 1 << 11
"""Components of longer features are computed from products of rows if these are fewer than the components."""
LEAST_DEVIATION = 0.02
"""Smallest deviation over the usual one. A component that is constant in training may vary in queries, or
once the blocks before it are trained: an unlimited gain would let it drown all others."""


def sample_rows(length: int) -> int:
    """Return how many rows of that length components are estimated from; more rows hardly change them."""
    return min(MOST_ROWS, (1 << 28) // length)  # of long features fewer, since n rows take n * F^2 operations


def standardise(projection: Projection, mean: Tensor, deviation: Tensor) -> None:
    """Make the projection subtract each component's mean and divide by its deviation."""
    projection.shift.copy_(mean)
    projection.gain.copy_(1 / _floored(deviation))


def _floored(deviation: Tensor) -> Tensor:
    """Return deviations (n,) of at least a share of their quadratic mean, 1 if all of them are 0."""
    usual = deviation.square().mean().sqrt()
    return deviation.clamp_min(LEAST_DEVIATION * usual) if usual > 0 else torch.ones_like(deviation)


def moments(blocks: Iterable[Block]) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each component over all blocks, each (F,) float32."""
    rows, total, squares = 0, torch.zeros(1), torch.zeros(1)
    for features, _ in blocks:
        wide = features.double()
        total = total.to(wide.device) + wide.sum(dim=0)
        squares = squares.to(wide.device) + wide.square().sum(dim=0)
        rows += len(features)
    return _mean_and_deviation(rows, total, squares)


def store_moments(source: FeatureSource) -> tuple[Tensor, Tensor]:
    """Return the same as `moments` for the whole store, with one chunk per dask thread in memory."""

    def of_chunk(start: int, stop: int) -> tuple[int, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        keep = source.rows[start:stop]
        wide = source.reader.read(start, stop, source.inputs)[keep].astype(np.float64)
        return int(keep.sum()), wide.sum(axis=0), np.square(wide).sum(axis=0)

    lazy: Any = delayed(of_chunk)
    chunks = [lazy(start, stop) for start, stop in source.reader.blocks()]
    sums: Any = dask.base.compute(*chunks, scheduler="threads")  # type: ignore[no-untyped-call]
    rows, totals, squares = zip(*sums, strict=True)
    return _mean_and_deviation(sum(rows), torch.from_numpy(sum(totals)), torch.from_numpy(sum(squares)))


def _mean_and_deviation(rows: int, total: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    mean = total / rows
    return mean.float(), (squares / rows - mean.square()).clamp_min(0).sqrt().float()


@torch.no_grad()
def principal_components(projection: Projection, blocks: Iterable[Block], *, whiten: bool) -> None:
    """Set the projection's weight to the leading components of the features, standardised if configured.

    Rows of the weight beyond the F components, if D > F, stay as they are. `whiten` divides each component by
    its deviation.
    """
    blocks, length = iter(blocks), projection.weight.shape[1]
    first, rows = [], 0
    while rows < length and (block := next(blocks, None)) is not None:
        first.append(block)
        rows += len(block[0])
    few = length > _WIDE and rows < length
    variances, vectors = (_by_rows if few else _by_components)(projection, chain(first, blocks))
    leading = vectors[: len(projection.weight)]
    if whiten:
        deviations = _floored(variances[: len(leading)].clamp_min(0).sqrt())
        leading = leading * (deviations[0] / deviations).unsqueeze(1)
    projection.weight[: len(leading)] = leading.float()


def _by_components(projection: Projection, blocks: Iterable[Block]) -> tuple[Tensor, Tensor]:
    """Return descending variances and principal components (F, F), from the covariance of the features."""
    length, device = projection.weight.shape[1], projection.weight.device
    scatter = torch.zeros(length, length, dtype=torch.float64, device=device)
    total = torch.zeros(length, dtype=torch.float64, device=device)
    rows = 0
    for features, _ in blocks:
        centred = (features.to(device).double() - projection.shift) * projection.gain
        scatter += centred.T @ centred
        total += centred.sum(dim=0)
        rows += len(features)
    covariance = scatter / rows - torch.outer(total, total) / rows**2
    variances, vectors = torch.linalg.eigh(covariance)
    return variances.flip(0), vectors.flip(1).T


def _by_rows(projection: Projection, blocks: Iterable[Block]) -> tuple[Tensor, Tensor]:
    """Return the same from products of n rows: X X^T = U S U^T gives up to n components S^-1/2 U^T X."""
    device = projection.weight.device
    rows = torch.cat([(features.to(device) - projection.shift) * projection.gain for features, _ in blocks])
    rows -= rows.mean(dim=0)
    squares, vectors = torch.linalg.eigh((rows @ rows.T).double())
    squares, vectors = squares.flip(0), vectors.flip(1)
    known = squares > squares[:1] * _LEAST_SHARE
    components = functional.normalize(vectors[:, known].T.float() @ rows, dim=1)
    return squares[known] / len(rows), components


_LEAST_SHARE = 1e-6
"""Smallest variance over the first one; smaller ones are rounding errors."""


@torch.no_grad()
def class_means(localiser: Localiser, blocks: Iterable[Block], groups: tuple[int, ...]) -> None:
    """Set the groups' prototypes to the mean embedding of their classes.

    A class without images keeps its random prototype.
    """
    totals = {group: torch.zeros_like(localiser.heads[group].prototypes) for group in groups}
    for features, classes in blocks:
        embeddings = localiser.embed(features)
        for group, total in totals.items():
            ids = localiser.classes.group_slice(group)
            members = np.nonzero((classes >= ids.start) & (classes < ids.stop))
            index = torch.from_numpy(classes[members] - ids.start).to(total.device)
            total.index_add_(0, index, embeddings[torch.from_numpy(members[0]).to(total.device)])
    for group, total in totals.items():
        prototypes = localiser.heads[group].prototypes
        has_images = total.norm(dim=1, keepdim=True) > 0
        prototypes.copy_(functional.normalize(total, dim=1).where(has_images, prototypes))
