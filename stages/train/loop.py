"""The training loop: the groups take turns (method, section 6)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stages.localiser import Localiser
from stages.train.config import TrainConfig
from stages.train.samplers import Batch, GroupSampler
from stages.train.source import TrainingSet
from stages.train.validation import Validation

Progress = Callable[[int, int], None]
_REPORTS = 50


@dataclass(frozen=True)
class LogLine:
    """One line of the training log: the mean loss and speed since the line before."""

    step: int
    loss: float
    samples_per_s: float
    validation_lr1: float | None


@dataclass(frozen=True)
class LoopResult:
    """What the loop did: steps taken, images and views drawn of each class, and its log."""

    steps: int
    drawn: npt.NDArray[np.int64]
    log: tuple[LogLine, ...]


class Trainer:
    """One optimiser step per batch over the projection and one group's prototypes.

    Parameters
    ----------
    localiser : Localiser
        Trained in place.
    data : TrainingSet
        Features.
    samplers : dict of int to GroupSampler
        The groups that take turns.
    config : TrainConfig
        Rates and sizes.
    train_projection : bool
        False leaves the projection as it is.
    """

    def __init__(
        self,
        localiser: Localiser,
        data: TrainingSet,
        samplers: dict[int, GroupSampler],
        config: TrainConfig,
        *,
        train_projection: bool,
    ) -> None:
        self.localiser, self.data, self.samplers, self.config = localiser, data, samplers, config
        localiser.projection.requires_grad_(train_projection)
        self.projection_optimiser = (
            self._adam(localiser.projection, config.learning_rate_projection) if train_projection else None
        )
        self.head_optimisers = {
            group: self._adam(localiser.heads[group], config.learning_rate_heads) for group in samplers
        }
        self.drawn = np.zeros(len(localiser.classes), np.int64)

    def _adam(self, module: torch.nn.Module, rate: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(module.parameters(), rate, weight_decay=self.config.weight_decay, fused=True)

    def step(self, group: int) -> Tensor:
        """Take one step of a group and return its loss, still on the device."""
        batch = self.samplers[group].draw(self.config.batch_size)
        features = self.data.of(batch, self.localiser.device)
        loss = self.localiser.heads[group].loss(
            self.localiser.projection(features), self._labels(batch, group)
        )
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in (self.projection_optimiser, self.head_optimisers[group]):
            if optimiser is not None:
                optimiser.step()
                optimiser.zero_grad()
        return loss.detach()

    def _labels(self, batch: Batch, group: int) -> Tensor:
        classes = np.concatenate([batch.image_classes, batch.view_classes])
        np.add.at(self.drawn, classes, 1)
        first = self.localiser.classes.group_slice(group).start
        return torch.from_numpy(classes - first).to(self.localiser.device, non_blocking=True)

    def run(self, steps: int, validation: Validation, progress: Progress | None) -> LoopResult:
        """Take up to `steps` steps; keep the weights that validate best.

        Parameters
        ----------
        steps : int
            Steps to take, fewer if the validation's patience runs out.
        validation : Validation
            Held-out images; with none of them the last weights are kept.
        progress : callable, optional
            Called with (done, total).
        """
        log = (
            [LogLine(0, float("nan"), 0.0, validation.measure(self.localiser, 0))] if len(validation) else []
        )
        marks = _marks(steps, self.config.validation.times if len(validation) else _REPORTS)
        groups = list(self.samplers)
        total, since, drawn = torch.zeros((), device=self.localiser.device), 0, 0
        clock = time.perf_counter()
        done = 0
        for done in range(1, steps + 1):
            total += self.step(groups[(done - 1) % len(groups)])
            since += 1
            if done in marks:
                loss = total.item() / since  # the only wait for the device
                now, count = time.perf_counter(), int(self.drawn.sum())
                percent = validation.measure(self.localiser, done) if len(validation) else None
                log.append(LogLine(done, loss, (count - drawn) / max(now - clock, 1e-9), percent))
                total.zero_()
                since, drawn, clock = 0, count, time.perf_counter()
                if progress is not None:
                    progress(done, steps)
                if validation.exhausted:
                    break
        if len(validation):
            validation.restore(self.localiser)
        return LoopResult(done, self.drawn, tuple(log))


def _marks(steps: int, times: int) -> frozenset[int]:
    """Return the steps after which to look, evenly spread, the last one among them."""
    return frozenset(round(steps * (i + 1) / times) for i in range(times)) - {0}
