"""Precision, loss implementation and batch padding for a device."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from stages.models.heads.class_balance import ALIKE, Classwise
from stages.models.heads.margin_loss import Buffers, Gradients, HeadSettings, loss_and_gradients
from stages.models.heads.margin_loss_compiled import fused_loss_and_gradients
from stages.train.config import TrainConfig

Loss = Callable[..., Gradients]
"""A function of (embeddings, prototypes, labels, settings, *, classwise)."""
_LOGITS_SHARE = 1 / 16
"""Of a GPU's memory, for a step's float32 logits; their bfloat16 derivatives take half as much again."""


def loss_of(config: TrainConfig, device: torch.device, buffers: Buffers) -> Loss:
    """Return the function of (embeddings, prototypes, labels, settings) that gives loss and gradients."""
    dtype = precision_of(config, device)
    loss: Loss = partial(loss_and_gradients, precision=dtype, buffers=buffers)
    if config.compile:
        loss = partial(fused_loss_and_gradients, precision=dtype)
    if device.type != "cuda":
        return loss
    memory = torch.cuda.get_device_properties(device).total_memory
    return in_parts(loss, int(memory * _LOGITS_SHARE) // torch.float32.itemsize)


def in_parts(loss: Loss, most_logits: int) -> Loss:
    """Return a loss that holds at most that many logits at once, or those of one sample.

    Larger batches are computed in parts of their samples, whose losses and gradients are added. Parts of the
    classes would take a fourth matrix product: the softmax needs all logits of a sample before any gradient.
    """

    def loss_in_parts(
        embeddings: Tensor,
        prototypes: Tensor,
        labels: Tensor,
        settings: HeadSettings,
        *,
        classwise: Classwise = ALIKE,
    ) -> Gradients:
        most_rows = max(1, most_logits // len(prototypes))
        if len(labels) <= most_rows:
            return loss(embeddings, prototypes, labels, settings, classwise=classwise)
        parts, losses, by_embeddings = math.ceil(len(labels) / most_rows), [], []
        by_prototypes = torch.zeros_like(prototypes)
        for some, theirs in zip(embeddings.tensor_split(parts), labels.tensor_split(parts), strict=True):
            share = len(theirs) / len(labels)
            # A copy: of a view, torch.compile would also fix the size of what it is a view of.
            part = loss(some, prototypes, theirs.clone(), settings, classwise=classwise)
            losses.append(part.loss * share)
            by_embeddings.append(part.by_embeddings * share)
            by_prototypes.add_(part.by_prototypes, alpha=share)
        return Gradients(torch.stack(losses).sum(), torch.cat(by_embeddings), by_prototypes)

    return loss_in_parts


def row_multiple(device: torch.device) -> int:
    """Return the number of rows to a multiple of which batches are padded before a tail.

    cuDNN plans its convolutions again for every batch size, and views make many sizes.
    """
    return 32 if device.type == "cuda" else 1


def precision_of(config: TrainConfig, device: torch.device) -> torch.dtype:
    """Return the dtype of matrix products."""
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32
