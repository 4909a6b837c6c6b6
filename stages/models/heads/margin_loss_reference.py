"""The margin softmax written as its equations: the two fast implementations are tested against it.

Autograd makes the gradients, at about twice the time of `margin_loss`.
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
    """Return the mean cross entropy of logits with the margin on the true class.

    Parameters
    ----------
    embeddings, prototypes, labels, settings, classwise
        As of `margin_loss.loss_and_gradients`. Gradients are not finite at angles of exactly 0 and pi.
    """
    if settings.kind == "linear":
        logits = embeddings @ prototypes.T
    else:
        cosines = embeddings @ functional.normalize(prototypes, dim=1).T  # 4.12, 4.13
        true = functional.one_hot(labels, len(prototypes)).bool()
        target = with_margin(cosines, settings, classwise.margins)
        logits = settings.scale * torch.where(true, target, cosines)  # 4.14, 4.15
    if classwise.offsets is not None:
        logits = logits + classwise.offsets
    losses = functional.cross_entropy(logits, labels, reduction="none")  # -log of 4.16
    if classwise.weights is not None:
        losses = losses * classwise.weights[labels]
    return losses.mean()  # 4.17


def with_margin(cosines: Tensor, settings: HeadSettings, margins: Tensor | None = None) -> Tensor:
    """Return the lowered cosines (B, K) of true classes; `margins` (K,) replace the head's."""
    margin = cosines.new_tensor(settings.margin) if margins is None else margins
    if settings.kind == "lmcc":
        return cosines - margin
    angles = cosines.arccos()
    shifted = (angles + margin).cos()  # 4.14
    if settings.easy_margin:
        return torch.where(cosines > 0, shifted, cosines)
    # Past pi the cosine would rise again; a line of slope 1 keeps falling.
    return torch.where(angles + margin <= torch.pi, shifted, cosines - margin * margin.sin())
