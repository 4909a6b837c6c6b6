"""One training step: batch, features, embeddings, loss, gradients, update (method, sections 4 to 6)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from stages.models.heads.class_balance import Classwise
from stages.models.heads.margin_loss import Buffers
from stages.models.localiser.localiser import Localiser
from stages.train.config import TrainConfig
from stages.train.data.feed import Part
from stages.train.data.samplers import BatchIndices
from stages.train.loop.batch_variation import classwise_of, vary
from stages.train.loop.distributed import Ranks
from stages.train.loop.optimiser import DenseAdam, SampledAdam, SharedAdam
from stages.train.loop.precision import loss_of, precision_of, row_multiple


class SoftmaxClasses(NamedTuple):
    """The C classes that a step's softmax runs over: all of the group, or a sample of them.

    ``prototypes`` (C, D); ``labels`` (B + A,), the true class of each image and view among them; ``rows``
    (C,), their places in the group, None for all of it.
    """

    prototypes: Tensor
    labels: Tensor
    classwise: Classwise
    rows: Tensor | None


class TrainingStep:
    """Updates projection, tail and the prototypes of the groups whose turn it is.

    The localiser is trained in place; `groups` are those of this process, one of several `ranks`. Without
    `train_projection`, projection and tail stay as they are.
    """

    def __init__(
        self,
        localiser: Localiser,
        groups: tuple[int, ...],
        config: TrainConfig,
        *,
        train_projection: bool,
        ranks: Ranks,
    ) -> None:
        self.localiser, self.config, self.ranks = localiser, config, ranks
        for module in (localiser.projection, localiser.tail):
            if module is not None:
                module.requires_grad_(train_projection)
        decay = config.weight_decay
        self.shared = SharedAdam(_shared_weights(localiser, config), decay) if train_projection else None
        adam = DenseAdam if config.class_sampling == 1 else SampledAdam
        self.heads = {
            group: adam(localiser.heads[group].prototypes, config.learning_rate_heads, decay)
            for group in groups
        }
        self._classes = {group: localiser.classes.group_slice(group) for group in groups}
        self._classwise = {
            group: classwise_of(
                config,
                localiser.classes.images[classes],
                localiser.heads[group].settings,
                localiser.device,
            )
            for group, classes in self._classes.items()
        }
        self._buffers = Buffers()
        self._loss = loss_of(config, localiser.device, self._buffers)

    def take(self, number: int, part: Part, drawn: npt.NDArray[np.int64]) -> Tensor:
        """Take the step of that number and return its mean loss, still on the device.

        Images and views come from `part`; `drawn` (K,) counts those of each class.
        """
        losses = [self._train_group(group, number, part, drawn) for group in part.schedule.at(number)]
        # Update what all groups share by the sum of their gradients. Other processes' sums need this one's
        # even if its part of the store happens to hold no image of its groups.
        if self.shared is not None and (losses or self.ranks.count > 1):
            for gradient in self.shared.gradients():
                self.ranks.add(gradient)
            self.shared.step()
        return torch.stack(losses).mean() if losses else torch.zeros((), device=self.localiser.device)

    def _train_group(self, group: int, number: int, part: Part, drawn: npt.NDArray[np.int64]) -> Tensor:
        """Update a group's prototypes, add to the gradients of projection and tail, and return the loss."""
        head, adam, device = self.localiser.heads[group], self.heads[group], self.localiser.device

        # Draw a batch: images of the group and, mostly for classes with few images, some of their views.
        batch = part.samplers[group].draw(number, self.config.batch_size)
        np.add.at(drawn, batch.classes, 1)

        # Gather their cached features: images, then views.
        features = part.data.of(batch, device, self._buffers)

        # Vary them if configured: mix views with their originals, add noise.
        vary(features, batch, self.config.feature_noise, self.localiser.projection.gain)

        # Embed them, z = Norm(W h), eq. 4.18.
        embeddings = self._embed(features)

        # Choose the classes to compare with: the whole group, or with class_sampling a part of it.
        compared = self._softmax_classes(group, batch)

        # Loss with the margin on the true class, eq. 4.13 to 4.17. Gradients are computed along with it by
        # hand: autograd would take twice the time.
        loss, by_embeddings, by_prototypes = self._loss(
            embeddings.detach(),
            compared.prototypes,
            compared.labels,
            head.settings,
            classwise=compared.classwise,
        )

        # Update the prototypes.
        if isinstance(adam, DenseAdam):
            adam.step(by_prototypes)
        elif compared.rows is not None:
            adam.step(compared.rows, compared.prototypes, by_prototypes)

        # Pass the gradient on to projection and tail, which `take` updates once all groups have had their
        # turn.
        if embeddings.requires_grad:
            torch.autograd.backward(embeddings, by_embeddings)
        return loss

    def _embed(self, features: Tensor) -> Tensor:
        """Return embeddings (B, D) of features (B, F), ready for backward."""
        tail, device = self.localiser.tail, self.localiser.device
        if tail is not None:
            dtype, rows = precision_of(self.config, device), len(features)
            tensors = pad(
                features[:, self.localiser.pooled_length :], (0, 0, 0, -rows % row_multiple(device))
            )
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                features = tail(tensors)[:rows]
        return self.localiser.projection(features)  # type: ignore[no-any-return]

    def _softmax_classes(self, group: int, batch: BatchIndices) -> SoftmaxClasses:
        """Return the classes of a group that a batch is compared with."""
        device, first = self.localiser.device, self._classes[group].start
        prototypes, classwise = self.localiser.heads[group].prototypes.detach(), self._classwise[group]
        labels, rows = batch.classes - first, None
        if batch.sampled_classes is not None:
            sampled = batch.sampled_classes - first
            rows, labels = torch.from_numpy(sampled).to(device), np.searchsorted(sampled, labels)
            prototypes, classwise = prototypes.index_select(0, rows), classwise.of(rows)
        target = torch.from_numpy(labels).to(device, non_blocking=True)
        return SoftmaxClasses(prototypes, target, classwise, rows)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on, by name; shares memory with the originals."""
        named = {f"localiser.{name}": value for name, value in self.localiser.tensors().items()}
        optimisers = {"shared": self.shared, **{str(g): adam for g, adam in self.heads.items()}}
        for owner, adam in optimisers.items():
            for name, value in adam.tensors().items() if adam is not None else ():
                named[f"adam.{owner}.{name}"] = value
        return named


def _shared_weights(localiser: Localiser, config: TrainConfig) -> dict[str, tuple[nn.Parameter, float]]:
    """Return the weights that all groups share, with their learning rates."""
    rate = config.learning_rate_projection
    weights = {"projection": (localiser.projection.weight, rate)}
    if localiser.tail is not None:
        for name, weight in localiser.tail.named_parameters():
            pretrained = not name.startswith("aggregator.")
            weights[f"tail.{name}"] = (weight, config.learning_rate_tail if pretrained else rate)
    return weights
