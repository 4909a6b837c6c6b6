"""The margin softmax for torch.compile: functions over whole matrices, each compiled to one pass over memory.

It serves GPUs with many classes, where reading and writing logits takes most of the time. The same loss and
gradients are in `margin_loss`, in parts that fit a CPU's cache, and in `margin_loss_reference`, their
specification.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stages.models.heads.class_balance import ALIKE, Classwise
from stages.models.heads.margin_loss import Gradients, HeadSettings, margin_cosine, wide_product

_MULTIPLE = 16


@torch.no_grad()
def fused_loss_and_gradients(
    embeddings: Tensor,
    prototypes: Tensor,
    labels: Tensor,
    settings: HeadSettings,
    *,
    classwise: Classwise = ALIKE,
    precision: torch.dtype | None = None,
    compiled: bool = True,
) -> Gradients:
    """Return the mean cross entropy with the margin on the true class (4.17), and its gradients.

    Parameters
    ----------
    embeddings, prototypes, labels, settings, classwise, precision
        As of `stages.models.heads.margin_loss.loss_and_gradients`.
    compiled : bool
        Whether to use torch.compile, for any number of samples and classes: the first call takes half a
        minute.
    """
    narrow = precision or prototypes.dtype
    linear = settings.kind == "linear"
    scale = 1.0 if linear else settings.scale
    unit, slopes, tangent = _pieces(compiled)
    factor, inverse = unit(prototypes, narrow, linear)
    logits = wide_product((embeddings * scale).to(narrow), factor.T)
    column, kept = labels.unsqueeze(1), (len(prototypes), settings, narrow)
    losses, by_logit = slopes(logits, column, *kept, classwise.offsets, classwise.margins)
    weight: Tensor | float = scale / len(labels)
    if classwise.weights is not None:
        share = classwise.weights[column]
        losses, weight = losses * share, weight * share
    by_embedding = wide_product(by_logit, factor) * weight
    by_prototype = wide_product(by_logit.T, (embeddings * weight).to(narrow))[: len(prototypes)]
    if not linear:
        by_prototype = tangent(by_prototype, prototypes, inverse)
    return Gradients(losses.mean(), by_embedding.to(embeddings.dtype), by_prototype.to(prototypes.dtype))


@lru_cache(maxsize=2)
def _pieces(compiled: bool) -> tuple[Any, ...]:
    pieces = (_unit, _slopes, _tangent)
    return tuple(torch.compile(piece, dynamic=True) for piece in pieces) if compiled else pieces


def _unit(prototypes: Tensor, narrow: torch.dtype, linear: bool) -> tuple[Tensor, Tensor]:
    """Return unit prototypes (K', D) and the reciprocals of their lengths (K, 1) in float32 or wider.

    K' is K padded with zeros to a multiple of 16: a GPU multiplies other matrices five times slower.
    """
    wide = prototypes.to(torch.promote_types(prototypes.dtype, torch.float32))
    inverse = torch.linalg.vector_norm(wide, dim=1, keepdim=True).clamp_min(1e-12).reciprocal()
    unit = wide if linear else wide * inverse
    return functional.pad(unit.to(narrow), (0, 0, 0, -len(unit) % _MULTIPLE)), inverse


def _slopes(
    logits: Tensor,
    labels: Tensor,
    classes: int,
    settings: HeadSettings,
    narrow: torch.dtype,
    offsets: Tensor | None,
    margins: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return losses (B, 1) and their derivatives by the logits (B, K'); only the true column has a margin."""
    scale = 1.0 if settings.kind == "linear" else settings.scale
    own = None if margins is None else margins[labels]
    target, bend = margin_cosine(logits.gather(1, labels) / scale, settings, own)
    target = target * scale
    if offsets is not None:
        logits = logits + functional.pad(offsets, (0, logits.shape[1] - classes))
        target = target + offsets[labels]
    columns = torch.arange(logits.shape[1], device=logits.device)
    true = columns == labels
    logits = torch.where(true, target, logits).masked_fill(columns >= classes, -torch.inf)
    peak = logits.amax(dim=1, keepdim=True)
    total = (logits - peak).exp().sum(dim=1, keepdim=True)
    share = (logits - peak).exp() / total
    return total.log() + peak - target, torch.where(true, (share - 1) * bend, share).to(narrow)


def _tangent(gradient: Tensor, prototypes: Tensor, inverse: Tensor) -> Tensor:
    """Return the derivative by the prototypes before normalisation: a change along one has no effect."""
    unit = prototypes * inverse
    return (gradient - unit * (gradient * unit).sum(dim=1, keepdim=True)) * inverse
