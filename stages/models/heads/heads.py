"""One projection shared by all groups and one classification head per group (method, 4.12 - 4.18)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.models.heads.margin_loss import HeadKind, HeadSettings, loss_and_gradients, margin_cosine

__all__ = ["Head", "HeadKind", "HeadSettings", "Projection", "log_odds", "margin_cosine"]


class Projection(nn.Module):
    """Unit-length embeddings of features: z = Norm(W (h - shift) * gain), eq. 4.18.

    ``shift`` and ``gain`` standardise the feature and are not trained; initially 0 and 1 they change nothing.

    Parameters
    ----------
    features : int
        F, length of a feature, frozen or from a trained tail.
    embedding_dim : int
        D, length of an embedding.
    """

    shift: Tensor
    gain: Tensor

    def __init__(self, features: int, embedding_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(embedding_dim, features))
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("gain", torch.ones(features))
        nn.init.orthogonal_(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Return embeddings of unit length, shape (B, D), of features (B, F)."""
        centred = (features.to(self.weight.dtype) - self.shift) * self.gain
        return functional.normalize(functional.linear(centred, self.weight), dim=1)


class Head(nn.Module):
    """Logits and loss of one group over that group's own classes, eq. 4.12 - 4.17.

    Parameters
    ----------
    classes : int
        K, classes of the group; 0 is allowed (such a head is never trained).
    embedding_dim : int
        D, length of an embedding.
    settings : HeadSettings
        Kind, scale and margin.
    """

    def __init__(self, classes: int, embedding_dim: int, settings: HeadSettings) -> None:
        super().__init__()
        self.settings = settings
        self.prototypes = nn.Parameter(torch.empty(classes, embedding_dim))
        if classes:
            nn.init.normal_(self.prototypes, std=embedding_dim**-0.5)

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Return cosines (B, K) between unit embeddings (B, D) and the unit prototypes, eq. 4.13."""
        return embeddings @ functional.normalize(self.prototypes, dim=1).T

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the logits (B, K) of evaluation, which have no margin, eq. 4.15."""
        if self.settings.kind == "linear":
            return embeddings @ self.prototypes.T
        return self.settings.scale * self.cosines(embeddings)

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross entropy of logits with the margin on the true class, eq. 4.17.

        Parameters
        ----------
        embeddings : Tensor
            Unit embeddings, shape (B, D).
        labels : Tensor
            Index in the group of each row's class, int64, shape (B,).
        """
        loss: Tensor = _MarginSoftmax.apply(embeddings, self.prototypes, labels, self.settings)
        return loss


def log_odds(logits: Tensor) -> Tensor:
    """Return the log of P / (1 - P) of the softmax over each row, shape (B, K), float64.

    It ranks as P does, and still tells groups apart where P rounds to 1 in several of them, which happens to
    most queries at a scale of 100. A group of one class has P = 1 for every query and says nothing: its log
    odds are minus infinity, so it comes last.
    """
    if logits.shape[1] == 1:
        return torch.full_like(logits, -torch.inf, dtype=torch.float64)
    logits = logits.double()
    log_probability = logits.log_softmax(dim=1)
    odds = log_probability - torch.log1p(-log_probability.exp().clamp_max(0.5))
    winner = logits.argmax(dim=1, keepdim=True)
    others = logits.scatter(1, winner, -torch.inf).logsumexp(dim=1, keepdim=True)
    return odds.scatter(1, winner, logits.gather(1, winner) - others)


class _MarginSoftmax(torch.autograd.Function):
    """`loss_and_gradients` for autograd: forward computes the gradients, backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, prototypes: Tensor, labels: Tensor, settings: HeadSettings
    ) -> Tensor:
        loss, by_embeddings, by_prototypes = loss_and_gradients(embeddings, prototypes, labels, settings)
        ctx.save_for_backward(by_embeddings, by_prototypes)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        by_embeddings, by_prototypes = ctx.saved_tensors
        return by_embeddings * upstream, by_prototypes * upstream, None, None
