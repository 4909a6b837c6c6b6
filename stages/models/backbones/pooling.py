"""Pooling of a backbone's tokens to features: cls, reg, avg, gem (4.10), bilinear."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stages.models.backbones.spec import BILINEAR, BILINEAR_LENGTH

GEM_POWER = 3.0
GEM_FLOOR = 1e-6


def pooled(names: Iterable[str], prefix: Tensor, patches: Tensor, registers: int = 0) -> dict[str, Tensor]:
    """Return the features of a batch, one per name.

    ``cls`` is the class token (ViT only); ``reg`` the mean of the registers, the last prefix tokens;
    ``avg`` the mean of the patch tokens (for a CNN, of the positions of its last feature map); ``gem``
    their generalised mean with power 3, (1/N sum_i max(x_i, 1e-6)^3)^(1/3); ``bilinear`` a sketch of their
    second moments, s_k = 1/N sum_i (a_k . x_i)(b_k . x_i), stored as sign(s_k) sqrt(|s_k|), at unit length.
    The vectors a_k and b_k hold fixed random signs, so that cosines of sketches estimate those of the
    matrices 1/N sum_i x_i x_i^T (compact bilinear pooling, Gao et al., CVPR 2016).

    Parameters
    ----------
    names : iterable of str
        Out of cls, reg, avg, gem, bilinear.
    prefix : Tensor, (B, P, F)
        Class token, then registers; P is 0 for a CNN.
    patches : Tensor, (B, N, F)
        Patch tokens.
    registers : int
        How many of the prefix tokens are registers.

    Returns
    -------
    dict of str to Tensor, (B, F) float32
    """
    patches = patches.float()
    register_tokens = prefix[:, prefix.shape[1] - registers :]
    return {name: _POOLINGS[name](prefix, register_tokens, patches) for name in names}


def _class_token(prefix: Tensor, registers: Tensor, patches: Tensor) -> Tensor:
    return prefix[:, 0].float()


def _mean_register(prefix: Tensor, registers: Tensor, patches: Tensor) -> Tensor:
    return registers.float().mean(dim=1)


def _mean(prefix: Tensor, registers: Tensor, patches: Tensor) -> Tensor:
    return patches.mean(dim=1)


def _generalised_mean(prefix: Tensor, registers: Tensor, patches: Tensor) -> Tensor:
    return patches.clamp(min=GEM_FLOOR).pow(GEM_POWER).mean(dim=1).pow(1 / GEM_POWER)


def _second_moments(prefix: Tensor, registers: Tensor, patches: Tensor) -> Tensor:
    positions, channels = patches.shape[1:]
    signs: Tensor = _signs(channels, patches.device)
    if channels * (positions + BILINEAR_LENGTH) < 2 * positions * BILINEAR_LENGTH:  # fewer operations
        left, right = signs.chunk(2, dim=1)
        sketch = (patches.transpose(1, 2) @ patches @ left * right).sum(dim=1) / positions
    else:
        left, right = (patches @ signs).chunk(2, dim=2)
        sketch = (left * right).mean(dim=1)
    return functional.normalize(sketch.sign() * sketch.abs().sqrt(), dim=1)


@torch.compiler.disable  # type: ignore[untyped-decorator]
@lru_cache(maxsize=8)
def _signs(channels: int, device: torch.device) -> Tensor:
    """Return the a_k, then the b_k as columns (C, 2 K) of +-1 / sqrt(C); they never change."""
    count = 2 * channels * BILINEAR_LENGTH
    digest = hashlib.shake_256(f"{BILINEAR} {channels}".encode()).digest(count // 8)
    bits = np.unpackbits(np.frombuffer(digest, np.uint8)).reshape(channels, -1)
    return (2 * torch.from_numpy(bits).to(device, torch.float32) - 1) / math.sqrt(channels)


_POOLINGS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cls": _class_token,
    "reg": _mean_register,
    "avg": _mean,
    "gem": _generalised_mean,
    BILINEAR: _second_moments,
}
