"""The trainable part of the model: one shared projection and one head per group.

Pure torch; knows nothing of files, cells or images. Equation numbers are the
method's (4.12 - 4.18).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.errors import ConfigError

HeadKind = Literal["aamc", "lmcc", "linear"]
_SIN_SQUARED_FLOOR = 1e-6
"""Keeps d sin/d cos finite where the angle is exactly 0 or pi."""


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
        limit = math.pi / 2 if self.kind == "aamc" else 1.0
        if not 0 <= self.margin < limit:
            raise ConfigError(f"train.margin is {self.margin}; expected 0 <= margin < {limit:.3g}")


class Projection(nn.Module):
    """Unit-length embeddings of frozen features: z = Norm(W (h - shift) * gain), eq. 4.18.

    ``shift`` and ``gain`` standardise the feature and are not trained; with
    their initial 0 and 1 this is the equation to the letter.

    Parameters
    ----------
    features : int
        F, length of a frozen feature.
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
        """Return logits (B, K) as at evaluation: the training logits without margin, eq. 4.15."""
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
        if self.settings.kind == "linear":
            return functional.cross_entropy(_wide(self(embeddings)), labels)
        unit = functional.normalize(self.prototypes, dim=1)
        loss: Tensor = _MarginCrossEntropy.apply(embeddings, unit, labels, self.settings)
        return loss


def margin_cosine(cosine: Tensor, settings: HeadSettings) -> tuple[Tensor, Tensor]:
    """Return the true class's cosine after the margin, and its derivative by the cosine.

    ``aamc``: cos(theta + m) = cos(theta) cos(m) - sin(theta) sin(m), eq. 4.14.
    Where theta + m passes pi that would rise again, so cos(theta) - m sin(m)
    stands in and the target keeps falling with the angle.
    """
    margin = settings.margin
    if settings.kind != "aamc":
        return cosine - margin, torch.ones_like(cosine)
    sin_squared = 1 - cosine.square()
    sine = sin_squared.clamp_min(_SIN_SQUARED_FLOOR).sqrt()
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    bend = (cosine / sine).where(sin_squared > _SIN_SQUARED_FLOOR, torch.zeros_like(cosine))
    slope = math.cos(margin) + bend * math.sin(margin)
    if settings.easy_margin:
        within, otherwise = cosine > 0, cosine
    else:
        within, otherwise = cosine > -math.cos(margin), cosine - margin * math.sin(margin)
    return shifted.where(within, otherwise), slope.where(within, torch.ones_like(slope))


def log_odds(logits: Tensor) -> Tensor:
    """Return the log of P / (1 - P) of the softmax over each row, shape (B, K), float64.

    It ranks as P does, but where P rounds to 1 in several groups at once,
    which a scale of 100 brings about for most queries, it still tells them
    apart. A group of one class has P = 1 whatever the query: nothing is
    compared there, so its log odds are minus infinity and it comes last.
    """
    if logits.shape[1] == 1:
        return torch.full_like(logits, -torch.inf, dtype=torch.float64)
    logits = logits.double()
    log_probability = logits.log_softmax(dim=1)
    odds = log_probability - torch.log1p(-log_probability.exp().clamp_max(0.5))
    winner = logits.argmax(dim=1, keepdim=True)
    others = logits.scatter(1, winner, -torch.inf).logsumexp(dim=1, keepdim=True)
    return odds.scatter(1, winner, logits.gather(1, winner) - others)


def _wide(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


class _MarginCrossEntropy(torch.autograd.Function):
    """Mean cross entropy of margin logits with one B x K buffer each way.

    Autograd alone would walk over B x K several times more, for the gather and
    the scatter of a single column. Margins and the softmax are computed in
    float32 or wider whatever the matrix product's type.
    """

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, unit: Tensor, labels: Tensor, settings: HeadSettings) -> Tensor:
        logits = _wide((embeddings * settings.scale) @ unit.T)
        column = labels.unsqueeze(1)
        target, slope = margin_cosine(logits.gather(1, column) / settings.scale, settings)
        logits.scatter_(1, column, target * settings.scale)
        log_probability = torch.log_softmax(logits, dim=1)
        ctx.save_for_backward(embeddings, unit, column, slope, log_probability)
        ctx.scale = settings.scale
        return -log_probability.gather(1, column).mean()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        embeddings, unit, column, slope, log_probability = ctx.saved_tensors
        gradient = log_probability.exp()
        gradient.scatter_(1, column, (gradient.gather(1, column) - 1) * slope)
        gradient = gradient.to(unit.dtype)
        factor = (upstream * ctx.scale / len(gradient)).to(unit.dtype)
        by_embedding = gradient @ unit * factor if ctx.needs_input_grad[0] else None
        by_unit = gradient.T @ (embeddings * factor) if ctx.needs_input_grad[1] else None
        return by_embedding, by_unit, None, None
