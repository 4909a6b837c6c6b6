"""The training loop: steps, log lines, validations."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stages.errors import InputError
from stages.files import Progress
from stages.models.localiser.localiser import Localiser
from stages.train.config import TrainConfig
from stages.train.data.feed import Feed
from stages.train.loop.distributed import Ranks
from stages.train.loop.training_step import TrainingStep
from stages.train.loop.validation import Validation

LOG_LINES = 50
"""Lines of the log where nothing is validated; otherwise each validation adds one."""
PROGRESS_S = 1.0
"""Seconds between reports of progress between lines of the log."""


@dataclass(frozen=True)
class LogLine:
    """One line of the training log: mean loss and speed since the line before."""

    step: int
    loss: float
    samples_per_s: float
    validation_lr1: float | None


@dataclass
class LoopState:
    """Progress of a loop: images and views drawn of each class, steps taken, log."""

    drawn: npt.NDArray[np.int64]
    step: int = 0
    log: list[LogLine] = field(default_factory=list)


class Trainer:
    """Takes steps on batches from a feed, logs and validates in between; arguments as of `TrainingStep`."""

    def __init__(
        self,
        localiser: Localiser,
        feed: Feed,
        groups: tuple[int, ...],
        config: TrainConfig,
        *,
        train_projection: bool,
        ranks: Ranks,
    ) -> None:
        self.localiser, self.feed, self.config, self.ranks = localiser, feed, config, ranks
        self._step = TrainingStep(localiser, groups, config, train_projection=train_projection, ranks=ranks)
        self.state = LoopState(np.zeros(len(localiser.classes), np.int64))

    def step(self, number: int) -> Tensor:
        """Take the step of that number and return its mean loss, still on the device."""
        return self._step.take(number, self.feed.at(number), self.state.drawn)

    def run(
        self,
        steps: int,
        validation: Validation,
        progress: Progress | None = None,
        on_log_line: Callable[[LoopState], None] | None = None,
    ) -> LoopState:
        """Take the remaining steps of `steps`; keep the weights that validate best.

        Parameters
        ----------
        steps : int
            Steps in all; fewer are taken if the validation's patience runs out.
        validation : Validation
            Held-out images; without any, the last weights are kept.
        progress : callable, optional
            Called with (done, total).
        on_log_line : callable, optional
            Called whenever a line was added to the log.
        """
        state = self.state
        marks = _marks(steps, validation.config.times if len(validation) else LOG_LINES)
        if len(validation) and not state.log:
            state.log.append(LogLine(0, float("nan"), float("nan"), self._validate(validation, 0)))
        total, since = torch.zeros((), device=self.localiser.device), state.step
        clock, drawn = time.perf_counter(), int(state.drawn.sum())
        shown = clock
        while state.step < steps and not validation.exhausted:
            state.step += 1
            total += self.step(state.step)
            if state.step not in marks:
                if progress is not None and time.perf_counter() - shown > PROGRESS_S:
                    shown = time.perf_counter()
                    progress(state.step, steps)
                continue
            self.ranks.add(total)
            loss = total.item() / (state.step - since) / self.ranks.count  # the only wait for the device
            _require_finite(loss, state.step)
            count, seconds = int(state.drawn.sum()), time.perf_counter() - clock
            percent = self._validate(validation, state.step) if len(validation) else None
            state.log.append(LogLine(state.step, loss, (count - drawn) / max(seconds, 1e-9), percent))
            total.zero_()
            if on_log_line is not None:
                on_log_line(state)
            if progress is not None:
                progress(state.step, steps)
            since, drawn, clock = state.step, count, time.perf_counter()
            shown = clock
        if len(validation):
            validation.restore(self.localiser)
        return state

    def _validate(self, validation: Validation, step: int) -> float:
        self.ranks.share(self.localiser, range(len(self.localiser.heads)))
        return validation.measure(self.localiser, step, self.ranks.agree)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on, by name; shares memory with the originals."""
        return self._step.tensors()


def _require_finite(loss: float, step: int) -> None:
    if not np.isfinite(loss):
        raise InputError(
            f"the loss is {loss} by step {step}: lower train.learning_rate_heads, learning_rate_projection "
            "and, with a tail, learning_rate_tail, or check the store with `pipeline status --bad`"
        )


def _marks(steps: int, times: int) -> frozenset[int]:
    """Return the steps after which to add a line to the log: evenly spread, the last step among them."""
    return frozenset(round(steps * (i + 1) / times) for i in range(times)) - {0}
