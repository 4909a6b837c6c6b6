"""GeM: a generalised mean with a learned power (Radenovic et al., 2018)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stages.models.aggregators.base import Aggregator
from stages.models.backbones.pooling import GEM_FLOOR, GEM_POWER


class GeM(Aggregator):
    """Generalised mean of each channel with one learned power.

    f_c = (1/N sum_i max(x_ic, 1e-6)^p)^(1/p): the mean for p = 1, near the maximum for large p.
    p starts at 3, where this equals the backbone's ``gem``. Negative tokens count as 1e-6.

    Parameters
    ----------
    channels : int
        Channels C of a local feature, and length of the feature.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.length = channels
        self.power = nn.Parameter(torch.tensor(GEM_POWER))

    def begin(self, patches: Tensor, seed: int) -> None:
        """Set the power to 3, whatever the sample and the seed."""
        with torch.no_grad():
            self.power.fill_(GEM_POWER)

    def _aggregate(self, prefix: Tensor, patches: Tensor) -> Tensor:
        # In logarithms, where 1000 ** p does not overflow whatever power training reaches.
        logs = patches.clamp_min(GEM_FLOOR).log()
        total = torch.logsumexp(self.power * logs, dim=1)
        return torch.exp((total - math.log(patches.shape[1])) / self.power)
