"""What an aggregator is, and the simplest of them: a generalised mean."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stages.models.aggregators.base import Aggregator
from stages.models.backbones.pooling import GEM_FLOOR, GEM_POWER


class GeM(Aggregator):
    """Generalised mean of each channel with one learned power (Radenovic et al., 2018).

    f_c = (1/N sum_i max(x_ic, 1e-6)^p)^(1/p): the mean for p = 1, towards the maximum as p grows;
    p begins at 3. Tokens of a transformer may be negative and count as the floor, as in the backbone's
    own ``gem``, which this equals before the first step.

    Parameters
    ----------
    channels : int
        C, of a local feature; the feature is as long.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.length = channels
        self.power = nn.Parameter(torch.tensor(GEM_POWER))

    def begin(self, patches: Tensor, seed: int) -> None:
        """Set the power to 3; neither the sample nor the seed has a part in it."""
        with torch.no_grad():
            self.power.fill_(GEM_POWER)

    def _aggregate(self, prefix: Tensor, patches: Tensor) -> Tensor:
        # In logarithms, where 1000 ** p overflows for no power that training may reach.
        logs = patches.clamp_min(GEM_FLOOR).log()
        total = torch.logsumexp(self.power * logs, dim=1)
        return torch.exp((total - math.log(patches.shape[1])) / self.power)
