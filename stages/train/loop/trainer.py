"""The training loop: one optimiser step after the other (method, section 6)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from stages.errors import InputError
from stages.files import Progress
from stages.models.heads.margin_loss import Buffers
from stages.models.localiser.localiser import Localiser
from stages.train.config import TrainConfig
from stages.train.data.feed import Feed, Part
from stages.train.data.samplers import BatchIndices
from stages.train.loop.batch_variation import classwise_of, vary
from stages.train.loop.distributed import Ranks
from stages.train.loop.optimiser import DenseAdam, SampledAdam, SharedAdam
from stages.train.loop.precision import loss_of, precision_of, row_multiple
from stages.train.loop.validation import Validation

REPORTS = 50


@dataclass(frozen=True)
class LogLine:
    """One line of the training log: the mean loss and speed since the line before."""

    step: int
    loss: float
    samples_per_s: float
    validation_lr1: float | None


@dataclass
class LoopState:
    """How far a loop has come: steps taken, images and views drawn of each class, its log."""

    drawn: npt.NDArray[np.int64]
    step: int = 0
    log: list[LogLine] = field(default_factory=list)


class Trainer:
    """Steps over what all groups share, projection and tail, and the prototypes of the groups that are due.

    Parameters
    ----------
    localiser : Localiser
        Trained in place.
    feed : Feed
        Batches.
    groups : tuple of int
        Groups that this process trains.
    config : TrainConfig
        Rates and sizes.
    train_projection : bool
        False leaves projection and tail as they are.
    ranks : Ranks
        The processes that train together.
    """

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
        for module in (localiser.projection, localiser.tail):
            if module is not None:
                module.requires_grad_(train_projection)
        decay = config.weight_decay
        self.shared = SharedAdam(_shared(localiser, config), decay) if train_projection else None
        adam = DenseAdam if config.class_sampling == 1 else SampledAdam
        self.heads = {
            group: adam(localiser.heads[group].prototypes, config.learning_rate_heads, decay)
            for group in groups
        }
        self.state = LoopState(np.zeros(len(localiser.classes), np.int64))
        slices = {group: localiser.classes.group_slice(group) for group in groups}
        self._first = {group: classes.start for group, classes in slices.items()}
        self._classwise = {
            group: classwise_of(
                config,
                localiser.classes.images[classes],
                localiser.heads[group].settings,
                localiser.device,
            )
            for group, classes in slices.items()
        }
        self._buffers = Buffers()
        self._loss = loss_of(config, localiser.device, self._buffers)

    def step(self, number: int) -> Tensor:
        """Take the step of that number and return its mean loss, still on the device."""
        part = self.feed.at(number)
        losses = [self._train_group(group, part, number) for group in part.schedule.at(number)]
        # A streamed part may happen to hold no image of this process's groups.
        if self.shared is not None and (losses or self.ranks.count > 1):
            for gradient in self.shared.gradients():
                self.ranks.add(gradient)
            self.shared.step()
        return torch.stack(losses).mean() if losses else torch.zeros((), device=self.localiser.device)

    def _train_group(self, group: int, part: Part, number: int) -> Tensor:
        """Update a group's prototypes, add to the gradients of what is shared and return the loss."""
        batch = part.samplers[group].draw(number, self.config.batch_size)
        head, optimiser, device = self.localiser.heads[group], self.heads[group], self.localiser.device
        features = part.data.of(batch, device, self._buffers)
        vary(features, batch, self.config.feature_noise, self.localiser.projection.gain)
        embeddings = self._embed(features)
        prototypes, labels, rows = head.prototypes.detach(), self._labels(batch, group), None
        classwise = self._classwise[group]
        if batch.faced is not None:
            faced = batch.faced - self._first[group]
            rows, labels = torch.from_numpy(faced).to(device), np.searchsorted(faced, labels)
            prototypes, classwise = prototypes.index_select(0, rows), classwise.of(rows)
        target = torch.from_numpy(labels).to(device, non_blocking=True)
        found = self._loss(embeddings.detach(), prototypes, target, head.settings, classwise=classwise)
        if isinstance(optimiser, DenseAdam):
            optimiser.step(found.prototypes)
        elif rows is not None:
            optimiser.step(rows, prototypes, found.prototypes)
        if embeddings.requires_grad:
            torch.autograd.backward(embeddings, found.embeddings)
        return found.loss

    def _embed(self, features: Tensor) -> Tensor:
        """Embeddings (B, D) of a batch, for a gradient; the tail computes as the heads' products do."""
        tail, device = self.localiser.tail, self.localiser.device
        if tail is not None:
            dtype, rows = precision_of(self.config, device), len(features)
            tensors = pad(
                features[:, self.localiser.pooled_length :], (0, 0, 0, -rows % row_multiple(device))
            )
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                features = tail(tensors)[:rows]
        return self.localiser.projection(features)  # type: ignore[no-any-return]

    def _labels(self, batch: BatchIndices, group: int) -> npt.NDArray[np.int64]:
        """Number in the group of each class of a batch; takes note of what was drawn."""
        classes = np.concatenate([batch.image_classes, batch.view_classes])
        np.add.at(self.state.drawn, classes, 1)
        labels: npt.NDArray[np.int64] = classes - self._first[group]
        return labels

    def run(
        self,
        steps: int,
        validation: Validation,
        progress: Progress | None = None,
        at_mark: Callable[[LoopState], None] | None = None,
    ) -> LoopState:
        """Take the steps that are left of `steps`; keep the weights that validate best.

        Parameters
        ----------
        steps : int
            Steps in all, fewer if the validation's patience runs out.
        validation : Validation
            Held-out images; with none of them the last weights are kept.
        progress : callable, optional
            Called with (done, total).
        at_mark : callable, optional
            Called whenever a line was added to the log.
        """
        state, marks = self.state, _marks(steps, validation.config.times if len(validation) else REPORTS)
        if len(validation) and not state.log:
            state.log.append(LogLine(0, float("nan"), float("nan"), self._validate(validation, 0)))
        total, since = torch.zeros((), device=self.localiser.device), state.step
        clock, drawn = time.perf_counter(), int(state.drawn.sum())
        while state.step < steps and not validation.exhausted:
            state.step += 1
            total += self.step(state.step)
            if state.step not in marks:
                continue
            self.ranks.add(total)
            loss = total.item() / (state.step - since) / self.ranks.count  # the only wait for the device
            _require_finite(loss, state.step)
            count, seconds = int(state.drawn.sum()), time.perf_counter() - clock
            percent = self._validate(validation, state.step) if len(validation) else None
            state.log.append(LogLine(state.step, loss, (count - drawn) / max(seconds, 1e-9), percent))
            total.zero_()
            if at_mark is not None:
                at_mark(state)
            if progress is not None:
                progress(state.step, steps)
            since, drawn, clock = state.step, count, time.perf_counter()
        if len(validation):
            validation.restore(self.localiser)
        return state

    def _validate(self, validation: Validation, step: int) -> float:
        self.ranks.share(self.localiser, range(len(self.localiser.heads)))
        return validation.measure(self.localiser, step, self.ranks.agree)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name; shares memory with what it names."""
        named = {f"localiser.{name}": value for name, value in self.localiser.tensors().items()}
        optimisers = {"shared": self.shared, **{str(g): adam for g, adam in self.heads.items()}}
        for owner, adam in optimisers.items():
            for name, value in adam.tensors().items() if adam is not None else ():
                named[f"adam.{owner}.{name}"] = value
        return named


def _shared(localiser: Localiser, config: TrainConfig) -> dict[str, tuple[nn.Parameter, float]]:
    """Return the weights that all groups share, with their learning rates."""
    rate = config.learning_rate_projection
    found = {"projection": (localiser.projection.weight, rate)}
    if localiser.tail is not None:
        for name, weight in localiser.tail.named_parameters():
            pretrained = not name.startswith("aggregator.")
            found[f"tail.{name}"] = (weight, config.learning_rate_tail if pretrained else rate)
    return found


def _require_finite(loss: float, step: int) -> None:
    if not np.isfinite(loss):
        raise InputError(
            f"the loss is {loss} by step {step}: lower train.learning_rate_heads, learning_rate_projection "
            "and, with a tail, learning_rate_tail, or check the store with `pipeline status --bad`"
        )


def _marks(steps: int, times: int) -> frozenset[int]:
    """Return the steps after which to look, evenly spread, the last one among them."""
    return frozenset(round(steps * (i + 1) / times) for i in range(times)) - {0}
