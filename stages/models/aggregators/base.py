"""What every aggregator does: local features of an image in, one feature out."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


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
