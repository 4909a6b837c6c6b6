"""The first weights, from the features themselves.

A head that starts at the means of its classes under a projection that keeps
most of the features' variance is a nearest-mean classifier before the first
step; training then has little to unlearn, which matters most where classes
have few images.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from stages.heads import Projection
from stages.localiser import Localiser

_BLOCK_ROWS = 8192
_SAMPLE_ROWS = 1 << 17
"""Rows that moments and components are estimated from; more change them little."""


def standardise(projection: Projection, features: Tensor) -> None:
    """Let the projection subtract each component's mean and divide by its deviation."""
    mean, deviation = _moments(features)
    projection.shift.copy_(mean)
    projection.gain.copy_(1 / deviation.clamp_min(1e-6))


@torch.no_grad()
def principal_components(projection: Projection, features: Tensor) -> None:
    """Set the projection's weight to the leading components of the standardised features.

    Rows of the weight beyond the F components, if D > F, stay as they are.
    """
    length = features.shape[1]
    device = projection.weight.device
    scatter = torch.zeros(length, length, dtype=torch.float64, device=device)
    total = torch.zeros(length, dtype=torch.float64, device=device)
    rows = 0
    for block in _blocks(_sample(features)):
        centred = (block.to(device).double() - projection.shift) * projection.gain
        scatter += centred.T @ centred
        total += centred.sum(dim=0)
        rows += len(block)
    covariance = scatter / rows - torch.outer(total, total) / rows**2
    _, vectors = torch.linalg.eigh(covariance)
    leading = vectors.flip(1).T[: len(projection.weight)]
    projection.weight[: len(leading)] = leading.float()


@torch.no_grad()
def class_means(
    localiser: Localiser, features: Tensor, classes: npt.NDArray[np.int64], groups: tuple[int, ...]
) -> None:
    """Set the groups' prototypes to the mean embedding of their classes.

    A class without images keeps its random prototype.
    """
    for group in groups:
        ids = localiser.classes.group_slice(group)
        members = np.flatnonzero((classes >= ids.start) & (classes < ids.stop))
        prototypes = localiser.heads[group].prototypes
        total = torch.zeros_like(prototypes)
        for start in range(0, len(members), _BLOCK_ROWS):
            chosen = members[start : start + _BLOCK_ROWS]
            embeddings = localiser.embed(features[torch.from_numpy(chosen).to(features.device)])
            index = torch.from_numpy(classes[chosen] - ids.start).to(total.device)
            total.index_add_(0, index, embeddings)
        found = total.norm(dim=1, keepdim=True) > 0
        prototypes.copy_(functional.normalize(total, dim=1).where(found, prototypes))


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    rows, total, squares = 0, torch.zeros(1), torch.zeros(1)
    for block in _blocks(_sample(features)):
        wide = block.double()
        total = total.to(wide.device) + wide.sum(dim=0)
        squares = squares.to(wide.device) + wide.square().sum(dim=0)
        rows += len(block)
    mean = total / rows
    return mean.float(), (squares / rows - mean.square()).clamp_min(0).sqrt().float()


def _sample(features: Tensor) -> Tensor:
    """Rows spread evenly over all: neighbouring rows are neighbouring photos."""
    return features[:: max(1, len(features) // _SAMPLE_ROWS)]


def _blocks(features: Tensor) -> Iterator[Tensor]:
    for start in range(0, len(features), _BLOCK_ROWS):
        yield features[start : start + _BLOCK_ROWS]
