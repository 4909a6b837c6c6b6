"""NetVLAD: residuals to learned cluster centres, summed by soft assignment (Arandjelovic et al., 2016)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.errors import ConfigError
from stages.models.aggregators.base import Aggregator

FIRST_RATIO = 100.0
"""Initial ratio of the weights of the nearest and the second nearest cluster."""
_KMEANS_TRIALS = 3
_KMEANS_ROWS = 4096
"""Rows of one step of k-means: enough for stable steps with hundreds of clusters."""
_LEAST_GAP = 1e-6


class NetVLAD(Aggregator):
    """Sums of residuals to K learned centres, weighted by soft assignment.

    With local features x_i of unit length (after an optional linear reduction to D channels)

        a_k(x_i) = exp(w_k . x_i + b_k) / sum_k' exp(w_k' . x_i + b_k')
        V_k = sum_i a_k(x_i) (x_i - c_k)

    where w_k, b_k and c_k are learned independently. Every V_k is scaled to unit length
    (intra-normalisation), then their concatenation.

    Parameters
    ----------
    channels : int
        Channels C of a local feature.
    clusters : int
        Number of clusters K.
    reduced : int
        Reduced channels D; 0: no reduction, D = C.
    """

    def __init__(self, channels: int, clusters: int, reduced: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(channels, reduced) if reduced else None
        width = reduced or channels
        self.length = clusters * width
        self.assignment = nn.Linear(width, clusters)
        self.centres = nn.Parameter(torch.empty(clusters, width))
        nn.init.normal_(self.centres, std=width**-0.5)

    @torch.no_grad()
    def begin(self, patches: Tensor, seed: int) -> None:
        """Set the centres by k-means and the assignment by distance to them, as in the paper's appendix.

        Assignment by distance, a_k ~ exp(-alpha ||x - c_k||^2), is w_k = 2 alpha c_k and
        b_k = -alpha ||c_k||^2. With alpha = log 100 / mean(d_2^2 - d_1^2) the nearest centre's weight is
        100 times that of the second nearest, in the geometric mean. A reduction starts as the sample's
        principal components.

        Raises
        ------
        ConfigError
            If there are fewer local features than clusters.
        """
        if len(patches) < len(self.centres):
            raise ConfigError(
                f"train.aggregator.clusters is {len(self.centres)}, but there are only {len(patches)} "
                "local features to initialise them: expected at most that many clusters"
            )
        patches = patches.to(self.centres)
        if self.reduction is not None:
            weight, bias = _principal_components(patches, len(self.reduction.weight))
            self.reduction.weight.copy_(weight)
            self.reduction.bias.copy_(bias)
        sample = self._reduced(patches).float().cpu().numpy()
        centres = _kmeans(sample, len(self.centres), seed)
        alpha = _sharpness(sample, centres)
        self.centres.copy_(torch.from_numpy(centres))
        self.assignment.weight.copy_(2 * alpha * self.centres)
        self.assignment.bias.copy_(-alpha * self.centres.square().sum(dim=1))

    def _aggregate(self, prefix: Tensor, patches: Tensor) -> Tensor:
        local = self._reduced(patches)
        weights = self.assignment(local).softmax(dim=2)
        # sum_i a_k(x_i) x_i - c_k sum_i a_k(x_i), without storing residuals (B, N, K, D)
        sums = weights.transpose(1, 2) @ local - weights.sum(dim=1).unsqueeze(2) * self.centres
        return functional.normalize(functional.normalize(sums, dim=2).flatten(1), dim=1)

    def _reduced(self, patches: Tensor) -> Tensor:
        if self.reduction is not None:
            patches = self.reduction(patches)
        return functional.normalize(patches, dim=-1)


def _principal_components(sample: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return weight (count, C) and bias (count,) of the projection to a sample's principal components."""
    wide = sample.double().cpu()
    mean = wide.mean(dim=0)
    centred = wide - mean
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    weight = vectors[:, -count:].flip(1).T
    return weight, -weight @ mean


def _kmeans(sample: npt.NDArray[np.float32], clusters: int, seed: int) -> npt.NDArray[np.float32]:
    from sklearn.cluster import MiniBatchKMeans

    # Unlike scikit-learn's KMeans, its result does not depend on the number of threads.
    kmeans = MiniBatchKMeans(clusters, batch_size=_KMEANS_ROWS, n_init=_KMEANS_TRIALS, random_state=seed)
    centres: npt.NDArray[np.float32] = kmeans.fit(sample).cluster_centers_.astype(np.float32)
    return centres


def _sharpness(sample: npt.NDArray[np.float32], centres: npt.NDArray[np.float32]) -> float:
    """Return alpha from the squared distances to the nearest and the second nearest centre."""
    squares = (sample**2).sum(1)[:, None] - 2 * sample @ centres.T + (centres**2).sum(1)
    nearest = np.partition(squares, 1, axis=1)
    gap = float((nearest[:, 1] - nearest[:, 0]).mean(dtype=np.float64))
    return math.log(FIRST_RATIO) / max(gap, _LEAST_GAP)
