"""Precision, loss implementation and batch padding for a device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from stages.models.heads.margin_loss import Buffers, Gradients, loss_and_gradients
from stages.models.heads.margin_loss_compiled import fused_loss_and_gradients
from stages.train.config import TrainConfig


def loss_of(config: TrainConfig, device: torch.device, buffers: Buffers) -> Callable[..., Gradients]:
    """Return the function of (embeddings, prototypes, labels, settings) that gives loss and gradients."""
    dtype = precision_of(config, device)
    if config.compile:
        return partial(fused_loss_and_gradients, precision=dtype)
    return partial(loss_and_gradients, precision=dtype, buffers=buffers)


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
