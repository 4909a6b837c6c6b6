"""What an aggregator is, and the simplest of them: a generalised mean."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from stages.models.backbones.pooling import GEM_FLOOR, GEM_POWER


class Aggregator(nn.Module, ABC):
    """Local features of an image in, one feature out.

    It computes in the precision of its own weights, float32 unless converted, also under autocast:
    powers and transport plans lose too much in half precision.

    Attributes
    ----------
    length : int
        F, length of the feature.
    """

    length: int

    def forward(self, prefix: Tensor, patches: Tensor) -> Tensor:
        """Return features of a batch.

        Parameters
        ----------
        prefix : Tensor, (B, P, C)
            Tokens that stand for no place in the image, the class token first; a CNN has none, P = 0.
        patches : Tensor, (B, N, C)
            Local features; their order does not matter.

        Returns
        -------
        Tensor, (B, F) float32
        """
        dtype = next(self.parameters()).dtype
        with torch.autocast(patches.device.type, enabled=False):
            return self._aggregate(prefix.to(dtype), patches.to(dtype))

    @abstractmethod
    def begin(self, patches: Tensor, seed: int) -> None:
        """Set all weights to what training begins with.

        They depend on the arguments alone, not on what the weights were or on torch's own generator.

        Parameters
        ----------
        patches : Tensor, (n, C)
            A sample of the local features of many images.
        seed : int
            Of whatever is drawn.
        """

    @abstractmethod
    def _aggregate(self, prefix: Tensor, patches: Tensor) -> Tensor: ...


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
