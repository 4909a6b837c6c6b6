"""Which groups a step trains, computed from its number (method, section 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Schedule:
    """The order in which groups are trained.

    Attributes
    ----------
    kind, turn
        `train.schedule` and `train.turn`.
    groups, images : sequence of int
        Groups that can be trained, and training images of each.
    batch_size : int
        Images that a step draws of a group.
    """

    kind: Literal["rotate", "joint"]
    turn: Literal["step", "epoch"]
    groups: Sequence[int]
    images: Sequence[int]
    batch_size: int

    def at(self, step: int) -> tuple[int, ...]:
        """Return the groups of a step; steps count from 1."""
        if self.kind == "joint" or not self.groups:
            return tuple(self.groups)
        if self.turn == "step":
            return (self.groups[(step - 1) % len(self.groups)],)
        within = (step - 1) % int(self._turn_ends[-1])
        return (self.groups[int(np.searchsorted(self._turn_ends, within, side="right"))],)

    def steps(self, epochs: float) -> int:
        """Return the number of steps that draw each training image `epochs` times on average."""
        if not self.groups:
            return 0
        drawn = self.batch_size * (len(self.groups) if self.kind == "joint" else 1)
        return math.ceil(epochs * sum(self.images) / drawn)

    @cached_property
    def _turn_ends(self) -> npt.NDArray[np.int64]:
        return np.cumsum([math.ceil(images / self.batch_size) for images in self.images])
