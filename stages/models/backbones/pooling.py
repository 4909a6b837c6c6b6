"""Pooling of a backbone's last tokens to features: cls, avg, gem (4.10)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

GEM_POWER = 3.0
GEM_FLOOR = 1e-6


def pooled(names: Iterable[str], prefix: Tensor, patches: Tensor) -> dict[str, Tensor]:
    """Return the features of a batch, one per name.

    ``cls`` is the class token (ViT only); ``avg`` the mean of the patch tokens (for a CNN, of the
    positions of its last feature map); ``gem`` their generalised mean with power 3,
    (1/N sum_i max(x_i, 1e-6)^3)^(1/3).

    Parameters
    ----------
    names : iterable of str
        Out of cls, avg, gem.
    prefix : Tensor, (B, P, F)
        Class token, then registers; P is 0 for a CNN.
    patches : Tensor, (B, N, F)
        Patch tokens.

    Returns
    -------
    dict of str to Tensor, (B, F) float32
    """
    patches = patches.float()
    return {name: _POOLINGS[name](prefix, patches) for name in names}


def _class_token(prefix: Tensor, patches: Tensor) -> Tensor:
    return prefix[:, 0].float()


def _mean(prefix: Tensor, patches: Tensor) -> Tensor:
    return patches.mean(dim=1)


def _generalised_mean(prefix: Tensor, patches: Tensor) -> Tensor:
    return patches.clamp(min=GEM_FLOOR).pow(GEM_POWER).mean(dim=1).pow(1 / GEM_POWER)


_POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": _class_token,
    "avg": _mean,
    "gem": _generalised_mean,
}
