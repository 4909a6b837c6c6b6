"""AdamW for the shared weights, for all prototypes of a head, and for sampled prototypes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class SharedAdam:
    """AdamW of the weights that all groups share: projection, aggregator, tail.

    `weights` maps a name to a weight, which is updated in place, and its learning rate.
    """

    def __init__(self, weights: Mapping[str, tuple[nn.Parameter, float]], decay: float) -> None:
        self.weights = {name: weight for name, (weight, _) in weights.items()}
        groups: dict[float, list[nn.Parameter]] = {}
        for weight, rate in weights.values():
            groups.setdefault(rate, []).append(weight)
        self._adam = torch.optim.AdamW(
            [{"params": members, "lr": rate} for rate, members in groups.items()],
            betas=BETAS,
            eps=EPSILON,
            weight_decay=decay,
            fused=True,
        )
        for weight in self.weights.values():
            self._adam.state[weight] = _initial_state(weight)

    def gradients(self) -> list[Tensor]:
        """Return the gradients of all weights in order, zeros for weights without one."""
        for weight in self.weights.values():
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        return [weight.grad for weight in self.weights.values() if weight.grad is not None]

    def step(self) -> None:
        """Update the weights by their gradients, and delete the gradients."""
        self._adam.step()
        self._adam.zero_grad()

    def tensors(self) -> dict[str, Tensor]:
        """Return moments and step counts."""
        return {
            f"{name}.{key}": value
            for name, weight in self.weights.items()
            for key, value in self._adam.state[weight].items()
        }


class DenseAdam:
    """AdamW of a whole weight, updated in place in one pass over memory."""

    def __init__(self, weight: nn.Parameter, rate: float, decay: float) -> None:
        self.weight = weight
        self._adam = torch.optim.AdamW([weight], rate, BETAS, EPSILON, decay, fused=True)
        self._adam.state[weight] = _initial_state(weight)

    def step(self, gradient: Tensor) -> None:
        """Update the weight by its gradient, of the same shape."""
        self.weight.grad = gradient
        self._adam.step()
        self.weight.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Return moments and step counts."""
        return dict(self._adam.state[self.weight])


class SampledAdam:
    """AdamW of some rows of a weight (K, D) in each step; all other rows keep their values and moments.

    Each row's bias correction counts its own updates. The cost grows with the rows updated, not with the
    weight.
    """

    def __init__(self, weight: nn.Parameter, rate: float, decay: float) -> None:
        self.weight, self.rate, self.decay = weight.detach(), rate, decay
        self._count = torch.zeros(len(weight), 1, device=weight.device)
        self._mean = torch.zeros_like(self.weight)
        self._square = torch.zeros_like(self.weight)

    def step(self, rows: Tensor, values: Tensor, gradient: Tensor) -> None:
        """Update rows (C,), int64 without repeats; their current values (C, D) are overwritten."""
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
        """Return moments and step counts."""
        return {"count": self._count, "mean": self._mean, "square": self._square}


def _initial_state(weight: Tensor) -> dict[str, Tensor]:
    """Return AdamW's state of a weight before its first step."""
    return {
        "step": torch.zeros((), device=weight.device),
        "exp_avg": torch.zeros_like(weight),
        "exp_avg_sq": torch.zeros_like(weight),
    }
