"""The interface of all aggregators: local features of an image in, one feature out."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Aggregator(nn.Module, ABC):
    """Local features of an image in, one feature out.

    It ignores autocast and computes in the type of its own weights, float32 unless converted: powers
    and transport plans lose too much in half precision.

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
            Class token, then registers; P is 0 for a CNN.
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
        """Set the initial weights of training, which depend only on the arguments.

        Parameters
        ----------
        patches : Tensor, (n, C)
            A sample of the local features of many images.
        seed : int
            Seed of all random choices.
        """

    @abstractmethod
    def _aggregate(self, prefix: Tensor, patches: Tensor) -> Tensor: ...
