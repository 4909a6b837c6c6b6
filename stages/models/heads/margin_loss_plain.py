"""The margin softmax written as its equations: the two fast implementations are tested against it.

About twice as slow as `margin_loss`, since autograd makes several passes over the B x K logits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from stages.models.heads.class_balance import ALIKE, Classwise
from stages.models.heads.margin_loss import HeadSettings


def plain_margin_loss(
    embeddings: Tensor,
    prototypes: Tensor,
    labels: Tensor,
    settings: HeadSettings,
    *,
    classwise: Classwise = ALIKE,
) -> Tensor:
    """Return the mean cross entropy of logits with the margin on the true class, for autograd.

    Parameters
    ----------
    embeddings, prototypes, labels, settings, classwise
        As of `margin_loss.loss_and_gradients`. Gradients are not finite at angles of exactly 0 and pi.
    """
    if settings.kind == "linear":
        logits = embeddings @ prototypes.T
    else:
        cosine = embeddings @ functional.normalize(prototypes, dim=1).T  # 4.12, 4.13
        target = _with_margin(cosine, settings, _margins(labels, settings, classwise))
        true = functional.one_hot(labels, len(prototypes)).bool()
        logits = settings.scale * torch.where(true, target, cosine)  # 4.14, 4.15
    if classwise.offsets is not None:
        logits = logits + classwise.offsets  # log priors
    losses = functional.cross_entropy(logits, labels, reduction="none")  # 4.16
    if classwise.weights is not None:
        losses = losses * classwise.weights[labels]
    return losses.mean()  # 4.17


def _margins(labels: Tensor, settings: HeadSettings, classwise: Classwise) -> Tensor:
    """Return the margin of each sample's class, shape (B, 1)."""
    if classwise.margins is None:
        return torch.full((len(labels), 1), settings.margin)
    return classwise.margins[labels].unsqueeze(1)


def _with_margin(cosine: Tensor, settings: HeadSettings, margin: Tensor) -> Tensor:
    """Return the cosines that true classes would have after the margin: smaller, so harder to get right."""
    if settings.kind == "lmcc":
        return cosine - margin
    angle = cosine.arccos()
    shifted = (angle + margin).cos()  # 4.14
    if settings.easy_margin:
        return torch.where(cosine > 0, shifted, cosine)
    # Past pi the cosine would rise again: a line of slope 1 keeps falling.
    return torch.where(angle + margin < torch.pi, shifted, cosine - margin * margin.sin())
