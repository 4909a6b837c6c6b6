"""The margin softmax: loss and gradients together, at about the cost of three matrix products.

The margin is subtracted in `margin_cosine`. `margin_loss_reference` specifies what is computed here, with
gradients by autograd; `margin_loss_compiled` computes it for torch.compile. Equation numbers are the method's
(4.12 - 4.17).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from stages.errors import ConfigError
from stages.models.heads.class_balance import ALIKE, Classwise

HeadKind = Literal["aamc", "lmcc", "linear"]
_SIN_SQUARED_FLOOR = 1e-6
"""Keeps d sin/d cos finite where the angle is exactly 0 or pi."""
_CACHED = 1 << 21
"""Numbers worked on at once on a CPU, so that they stay in its cache from one operation to the next."""


@dataclass(frozen=True)
class HeadSettings:
    """How a head turns cosines into logits.

    Attributes
    ----------
    kind : {"aamc", "lmcc", "linear"}
        Additive angular margin (ArcFace), additive cosine margin (CosFace), or
        a plain linear layer without bias.
    scale : float
        s, which multiplies cosines; the linear head has none.
    margin : float
        m: radians for ``aamc``, a cosine for ``lmcc``; the linear head has none.
    easy_margin : bool
        ``aamc`` only: apply the margin only where the cosine is positive.
    """

    kind: HeadKind
    scale: float
    margin: float
    easy_margin: bool

    def __post_init__(self) -> None:
        if self.kind not in ("aamc", "lmcc", "linear"):
            raise ConfigError(f"train.head is {self.kind!r}; expected aamc, lmcc or linear")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(f"train.scale is {self.scale}; expected a positive number such as 100")
        if not 0 <= self.margin < self.margin_limit:
            limit = f"{self.margin_limit:.3g}"
            raise ConfigError(f"train.margin is {self.margin}; expected 0 <= margin < {limit}")

    @property
    def margin_limit(self) -> float:
        """Upper limit of the margin: a right angle, or a cosine of 1."""
        return math.pi / 2 if self.kind == "aamc" else 1.0


_WIDE_OUT = torch.__version__ >= torch.torch_version.TorchVersion("2.8")
"""Whether a GPU can return the product of bfloat16 matrices in float32, in which it is summed: a logit of 100
rounded to bfloat16 is off by up to a quarter."""


def margin_cosine(cosine: Tensor, settings: HeadSettings, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the true class's cosine after the margin, and its derivative by the cosine.

    ``own``, shaped as the cosine, are margins of each sample's class instead of the head's.

    ``aamc``: cos(theta + m) = cos(theta) cos(m) - sin(theta) sin(m), eq. 4.14: the margin is added to the
    angle, so the cosine falls. Past theta + m = pi it would rise again: cos(theta) - m sin(m) takes its place
    and keeps falling. ``lmcc``: cos(theta) - m. ``linear`` has no margin.
    """
    margin = settings.margin if own is None else own
    if settings.kind != "aamc":
        return cosine - (margin if settings.kind == "lmcc" else 0.0), torch.ones_like(cosine)
    cos_m, sin_m = (math.cos(margin), math.sin(margin)) if own is None else (own.cos(), own.sin())
    sin_squared = 1 - cosine.square()
    sine = sin_squared.clamp_min(_SIN_SQUARED_FLOOR).sqrt()
    shifted = cosine * cos_m - sine * sin_m
    bend = (cosine / sine).where(sin_squared > _SIN_SQUARED_FLOOR, torch.zeros_like(cosine))
    slope = cos_m + bend * sin_m
    if settings.easy_margin:
        within, otherwise = cosine > 0, cosine
    else:
        within, otherwise = cosine > -cos_m, cosine - margin * sin_m
    return shifted.where(within, otherwise), slope.where(within, torch.ones_like(slope))


class Buffers:
    """Memory that is used again in every step.

    Allocating a tensor of a hundred megabytes costs more than filling it: the system zeroes each page first.
    """

    def __init__(self) -> None:
        self._flat: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the uninitialised tensor of that name; it overwrites the last one taken under this name."""
        length = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.numel() < length or flat.dtype != dtype or flat.device != like.device:
            flat = self._flat[name] = torch.empty(length, dtype=dtype, device=like.device)
        return flat[:length].view(shape)


class Gradients(NamedTuple):
    """The mean loss and its derivatives by the embeddings (B, D) and the prototypes (K, D)."""

    loss: Tensor
    by_embeddings: Tensor
    by_prototypes: Tensor


@torch.no_grad()
def loss_and_gradients(
    embeddings: Tensor,
    prototypes: Tensor,
    labels: Tensor,
    settings: HeadSettings,
    *,
    classwise: Classwise = ALIKE,
    buffers: Buffers | None = None,
    precision: torch.dtype | None = None,
) -> Gradients:
    """Return the mean cross entropy of logits with the margin on the true class (4.17), and its gradients.

    One buffer of B x K numbers is written once and read twice more, in parts that stay in the cache; the
    margin is applied to the true column only.

    Parameters
    ----------
    embeddings : Tensor
        Unit embeddings, shape (B, D).
    prototypes : Tensor
        Of any length, shape (K, D); the linear head does not normalise them.
    labels : Tensor
        Class of each embedding, int64, shape (B,).
    settings : HeadSettings
        Kind, scale and margin.
    classwise : Classwise, optional
        Weights, offsets and margins of the K classes.
    buffers : Buffers, optional
        Memory to work in. It holds the gradient by the prototypes until the next call.
    precision : torch.dtype, optional
        Of the inputs of the matrix products; by default that of the prototypes.
        Margins and the softmax are computed in float32 or wider.
    """
    buffers = buffers or Buffers()
    wide = torch.float64 if prototypes.dtype == torch.float64 else torch.float32
    narrow = precision or prototypes.dtype
    scale = 1.0 if settings.kind == "linear" else settings.scale
    unit, inverse = prototypes.to(wide), None
    if settings.kind != "linear":
        inverse = torch.linalg.vector_norm(unit, dim=1, keepdim=True).clamp_min(1e-12).reciprocal()
        unit = torch.mul(unit, inverse, out=buffers.take("unit", tuple(unit.shape), unit, wide))
    factor = unit.to(narrow)
    slopes = buffers.take("slopes", (len(labels), len(unit)), unit, wide)
    scaled = (embeddings * scale).to(narrow)
    losses, totals = _softmax_slopes(slopes, scaled, factor, labels, settings, classwise)
    slopes = slopes.to(narrow)
    weights = scale / (totals * len(labels))
    if classwise.weights is not None:
        share = classwise.weights[labels].unsqueeze(1)
        losses, weights = losses * share, weights * share
    by_embedding = (slopes @ factor) * weights
    by_prototype = buffers.take("gradient", tuple(unit.shape), unit, wide)
    _by_prototypes(by_prototype, slopes, (embeddings * weights).to(narrow), unit, inverse)
    return Gradients(losses.mean(), by_embedding.to(embeddings.dtype), by_prototype.to(prototypes.dtype))


def _softmax_slopes(
    slopes: Tensor,
    scaled: Tensor,
    factor: Tensor,
    labels: Tensor,
    settings: HeadSettings,
    classwise: Classwise,
) -> tuple[Tensor, Tensor]:
    """Fill `slopes` (B, K) with the loss's derivatives by the logits, times the row's total.

    Returns losses and totals of the softmax, each (B, 1). Dividing by the total is left to the caller, who
    scales rows anyway.
    """
    scale = 1.0 if settings.kind == "linear" else settings.scale
    losses, totals = [], []
    for rows in _parts(len(slopes), slopes.shape[1], slopes):
        part, column = slopes[rows], labels[rows].unsqueeze(1)
        _product(scaled[rows], factor.T, part)
        own = None if classwise.margins is None else classwise.margins[column]
        target, bend = margin_cosine(part.gather(1, column) / scale, settings, own)
        target *= scale
        if classwise.offsets is not None:
            part += classwise.offsets
            target += classwise.offsets[column]
        part.scatter_(1, column, target)
        peak = part.amax(dim=1, keepdim=True)
        part.sub_(peak).exp_()
        total = part.sum(dim=1, keepdim=True)
        losses.append(total.log() + peak - target)
        totals.append(total)
        part.scatter_(1, column, (part.gather(1, column) - total) * bend)
    return torch.cat(losses), torch.cat(totals)


def _by_prototypes(
    gradient: Tensor, slopes: Tensor, weighted: Tensor, unit: Tensor, inverse: Tensor | None
) -> None:
    """Fill `gradient` (K, D).

    Prototypes are normalised, so a change along a prototype itself has no effect: that part is subtracted.
    """
    for classes in _parts(len(gradient), gradient.shape[1], gradient):
        part = gradient[classes]
        _product(slopes[:, classes].T, weighted, part)
        if inverse is not None:
            along = (part * unit[classes]).sum(dim=1, keepdim=True)
            part.addcmul_(unit[classes], along, value=-1).mul_(inverse[classes])


def wide_product(left: Tensor, right: Tensor) -> Tensor:
    """Return a matrix product in at least float32, also of bfloat16 matrices."""
    if left.dtype in (torch.float32, torch.float64):
        return left @ right
    if left.is_cuda and _WIDE_OUT:
        return torch.mm(left, right, out_dtype=torch.float32)
    return (left @ right).float()


def _product(left: Tensor, right: Tensor, out: Tensor) -> None:
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    else:
        out.copy_(wide_product(left, right))


def _parts(rows: int, columns: int, like: Tensor) -> Iterator[slice]:
    size = rows if like.is_cuda else max(32, _CACHED // max(1, columns))
    for start in range(0, rows, max(1, size)):
        yield slice(start, min(start + size, rows))
