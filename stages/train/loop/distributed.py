"""Several processes training together: each owns some groups, all share projection and tail.

`torchrun` starts them and sets RANK, WORLD_SIZE and LOCAL_RANK. A process holds features, gradients and
moments of its own groups only. In every step the processes add up their gradients of projection and tail, so
these stay equal everywhere and are the same as with the joint schedule in one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed

from stages.errors import ConfigError
from stages.models.localiser.localiser import Localiser


@dataclass(frozen=True)
class Ranks:
    """The processes of a run: the number of this one, and their count."""

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """Return the processes that have joined, or a single one outside `torchrun`."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def own(self, groups: Sequence[int]) -> tuple[int, ...]:
        """Return the groups that this process trains.

        Raises
        ------
        ConfigError
            If there are more processes than groups.
        """
        if self.count > max(1, len(groups)):
            raise ConfigError(
                f"{self.count} processes for {len(groups)} groups: start at most {len(groups)} with torchrun"
            )
        return tuple(groups[self.rank :: self.count])

    def add(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        if self.count > 1:
            distributed.all_reduce(tensor)

    def total(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the sum of the counts over all processes."""
        if self.count == 1:
            return counts
        summed = torch.from_numpy(counts.copy()).to(_exchange_device())
        distributed.all_reduce(summed)
        return summed.cpu().numpy()

    def agree(self, value: float) -> float:
        """Return the first process's value in all processes."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=_exchange_device())
        distributed.broadcast(shared, 0)
        return float(shared.item())

    def share(self, localiser: Localiser, groups: Sequence[int]) -> None:
        """Copy each group's prototypes from the process that trains it to all others."""
        if self.count > 1:
            for place, group in enumerate(groups):  # the order in which `own` deals them out
                distributed.broadcast(localiser.heads[group].prototypes.detach(), place % self.count)

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the other processes if `torchrun` started this one, and yield its device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device.startswith("cuda"):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def _exchange_device() -> str:
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"
