"""Pooling of a backbone's last tokens to features: cls, reg, avg, gem (4.10)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

GEM_POWER = 3.0
GEM_FLOOR = 1e-6


def pooled(names: Iterable[str], prefix: Tensor, patches: Tensor, registers: int = 0) -> dict[str, Tensor]:
    """Return the features of a batch, one per name.

    ``cls`` is the class token (ViT only); ``reg`` the mean of the registers, the last prefix tokens;
    ``avg`` the mean of the patch tokens (for a CNN, of the positions of its last feature map); ``gem``
    their generalised mean with power 3, (1/N sum_i max(x_i, 1e-6)^3)^(1/3).

    Parameters
    ----------
    names : iterable of str
        Out of cls, reg, avg, gem.
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


_POOLINGS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cls": _class_token,
    "reg": _mean_register,
    "avg": _mean,
    "gem": _generalised_mean,
}
