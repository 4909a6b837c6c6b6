"""Adam for a head: over all of its prototypes, or over the few that a step has touched."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class DenseAdam:
    """AdamW over a whole weight, in one pass over memory.

    Parameters
    ----------
    weight : nn.Parameter
        Updated in place.
    rate, decay : float
        Learning rate and decoupled weight decay.
    """

    def __init__(self, weight: nn.Parameter, rate: float, decay: float) -> None:
        self.weight = weight
        self._adam = torch.optim.AdamW([weight], rate, BETAS, EPSILON, decay, fused=True)
        self._adam.state[weight] = {
            "step": torch.zeros((), device=weight.device),
            "exp_avg": torch.zeros_like(weight),
            "exp_avg_sq": torch.zeros_like(weight),
        }

    def step(self, gradient: Tensor) -> None:
        """Update the weight by its gradient, shape as the weight's."""
        self.weight.grad = gradient
        self._adam.step()
        self.weight.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Everything it remembers."""
        return dict(self._adam.state[self.weight])


class SampledAdam:
    """AdamW of single rows: a row that is not touched keeps its value and its moments.

    Bias is corrected by how often the row itself was touched. The cost goes
    with the rows touched, not with the weight.

    Parameters
    ----------
    weight : nn.Parameter
        Updated in place, shape (K, D).
    rate, decay : float
        Learning rate and decoupled weight decay.
    """

    def __init__(self, weight: nn.Parameter, rate: float, decay: float) -> None:
        self.weight, self.rate, self.decay = weight.detach(), rate, decay
        self._count = torch.zeros(len(weight), 1, device=weight.device)
        self._mean = torch.zeros_like(self.weight)
        self._square = torch.zeros_like(self.weight)

    def step(self, rows: Tensor, values: Tensor, gradient: Tensor) -> None:
        """Update some rows.

        Parameters
        ----------
        rows : Tensor
            Which, int64, shape (C,), each once.
        values, gradient : Tensor
            Their present values, which are overwritten, and their gradient, shape (C, D).
        """
        count = self._count.index_select(0, rows).add_(1)
        mean = self._mean.index_select(0, rows).lerp_(gradient, 1 - BETAS[0])
        square = self._square.index_select(0, rows).mul_(BETAS[1])
        square.addcmul_(gradient, gradient, value=1 - BETAS[1])
        self._count.index_copy_(0, rows, count)
        self._mean.index_copy_(0, rows, mean)
        self._square.index_copy_(0, rows, square)
        root = square.div_(1 - BETAS[1] ** count).sqrt_().add_(EPSILON)
        step = mean.mul_(self.rate / (1 - BETAS[0] ** count)).div_(root)
        self.weight.index_copy_(0, rows, values.mul_(1 - self.rate * self.decay).sub_(step))

    def tensors(self) -> dict[str, Tensor]:
        """Everything it remembers."""
        return {"count": self._count, "mean": self._mean, "square": self._square}
