"""Where the features wait during training, decided by their size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor

from stages.errors import ConfigError

if TYPE_CHECKING:
    from stages.models.trainable_blocks import TrainableBlocks

ResidencyKind = Literal["device", "host", "stream"]
_SHARE = 0.7
"""Share of the free memory that features may take; the rest is for batches, logits and other programs."""


@dataclass(frozen=True)
class Residency:
    """Where features wait: beside the weights, in main memory or in the store; and the reason, for people."""

    place: ResidencyKind
    reason: str

    def where(self, device: torch.device) -> torch.device:
        """Return the device that holds the features."""
        return device if self.place == "device" else torch.device("cpu")


def choose_residency(
    wanted: Literal["auto", "device", "host", "stream"],
    feature_bytes: int,
    weight_bytes: int,
    device: torch.device,
    free: tuple[int, int] | None = None,
    beside_bytes: int = 0,
) -> Residency:
    """Return where the features wait: the configured place, or the fastest one in which they fit.

    Parameters
    ----------
    wanted : {"auto", "device", "host", "stream"}
        `train.residency`.
    feature_bytes, weight_bytes : int
        Size of all features and views, and of the weights; gradients and two moments need three times as
        much.
    device : torch.device
        Device of the weights.
    free : (int, int), optional
        Free bytes on the device and in main memory; by default measured.
    beside_bytes : int, optional
        Memory on the device for held-out features and activations, which matters with a tail.

    Raises
    ------
    ConfigError
        If not even the weights fit the device.
    """
    on_device, on_host = free or free_bytes(device)
    size, need = f"{feature_bytes / 1e9:.2f} GB of features", 4 * weight_bytes
    if need > on_device:
        raise ConfigError(
            f"the heads need {need / 1e9:.1f} GB with their gradients and moments, {device} has "
            f"{on_device / 1e9:.1f} GB free: lower train.embedding_dim, raise partition.min_images_per_class "
            "or partition.cell_m, or give each GPU some of the groups (torchrun)"
        )
    if wanted != "auto":
        return Residency(wanted, f"{size}; set in params.yaml")
    if beside_bytes:
        size += f" beside {beside_bytes / 1e9:.2f} GB for the tail and held-out images"
    if feature_bytes <= _SHARE * (on_device - need) - beside_bytes:
        return Residency("device", f"{size} fit {device}, {on_device / 1e9:.1f} GB free")
    if device.type != "cpu" and feature_bytes <= _SHARE * on_host:
        return Residency("host", f"{size} do not fit {device}, but main memory, {on_host / 1e9:.1f} GB free")
    return Residency("stream", f"{size} fit no memory, {on_host / 1e9:.1f} GB of main memory free")


def free_bytes(device: torch.device) -> tuple[int, int]:
    """Return the free bytes on the device and in main memory."""
    host = int(psutil.virtual_memory().available)
    if device.type != "cuda":
        return host, host
    return int(torch.cuda.mem_get_info(device)[0]), host


def step_bytes(tail: TrainableBlocks, batch_rows: int) -> int:
    """Return roughly the memory that a step of `batch_rows` images and views needs for a tail's activations.

    Measured are the float32 activations of one image that autograd keeps. A step has those of its batch, and
    as much again for gradients and for activations within a block.
    """
    kept: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value
        return value

    weights = {weight.untyped_storage().data_ptr() for weight in tail.state_dict().values()}
    device = next(tail.parameters()).device
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        tail(torch.zeros(1, tail.split.length, device=device))
    of_one = sum(value.untyped_storage().nbytes() for at, value in kept.items() if at not in weights)
    return 2 * batch_rows * of_one
