"""SALAD: local features assigned to clusters by optimal transport (Izquierdo and Civera, 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.models.aggregators.base import Aggregator

HIDDEN = 512
"""Units in the hidden layer of each perceptron."""
ROUNDS = 3
"""Rounds of Sinkhorn's algorithm."""
FIRST_DUSTBIN = 1.0


class Salad(Aggregator):
    """Sums of reduced local features over m clusters, weighted by a transport plan with a dustbin.

    Perceptrons with one hidden layer give each local feature t_i its scores s_i (m of them) and its
    reduced feature f_i (l channels), and the global token t_0 its g:

        s_i = W_s2 relu(W_s1 t_i + b_s1) + b_s2,   f_i and g likewise
        P = transport([s, z])                      (`transport`; z: the dustbin's learned score)
        V_k = sum_i P_ik f_i                       for the m clusters; the dustbin's share is dropped

    The feature is g / ||g|| and every V_k / ||V_k||, concatenated and scaled to unit length. The global
    token is the class token, or the mean of the local features if there is none. The perceptrons have
    no dropout, so an image has the same feature in training and after it.

    Parameters
    ----------
    channels : int
        Channels C of a token.
    clusters : int
        Number of clusters m.
    reduced : int
        Length l of a reduced feature.
    global_length : int
        Length of g; 0: none.
    class_token : bool
        Whether the first prefix token is a class token.
    """

    def __init__(
        self, channels: int, clusters: int, reduced: int, global_length: int, *, class_token: bool
    ) -> None:
        super().__init__()
        self.class_token = class_token
        self.length = clusters * reduced + global_length
        self.score = _perceptron(channels, clusters)
        self.reduction = _perceptron(channels, reduced)
        self.overview = _perceptron(channels, global_length) if global_length else None
        self.dustbin = nn.Parameter(torch.tensor(FIRST_DUSTBIN))

    @torch.no_grad()
    def begin(self, patches: Tensor, seed: int) -> None:
        """Draw the perceptrons' weights uniformly within 1 / sqrt(inputs), PyTorch's default."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = module.in_features**-0.5
                for weight in (module.weight, module.bias):
                    weight.copy_(torch.empty(weight.shape).uniform_(-bound, bound, generator=generator))
        self.dustbin.fill_(FIRST_DUSTBIN)

    def _aggregate(self, prefix: Tensor, patches: Tensor) -> Tensor:
        plan = transport(self.score(patches), self.dustbin, rounds=ROUNDS)[:, :, :-1]
        sums = plan.transpose(1, 2) @ self.reduction(patches)
        joined = functional.normalize(sums, dim=2).flatten(1)
        if self.overview is not None:
            token = prefix[:, 0] if self.class_token else patches.mean(dim=1)
            joined = torch.cat([functional.normalize(self.overview(token), dim=1), joined], dim=1)
        return functional.normalize(joined, dim=1)


def transport(scores: Tensor, dustbin: Tensor, *, rounds: int) -> Tensor:
    """Return the entropic optimal transport plan from tokens to clusters and a dustbin.

    The plan P maximises sum P S - sum P log P for given masses. It is found by scaling the rows and the
    columns of exp(S) in turn (Sinkhorn's algorithm, in logarithms). Each of the n tokens has mass 1.
    With more tokens than clusters, as in the paper, each of the m clusters receives 1 and the dustbin
    n - m. With fewer, that would leave the dustbin nothing, so clusters and dustbin receive n / (m + 1)
    each; both rules agree at n = m + 1.

    Rows (tokens) are scaled first and columns last, so the columns' masses hold exactly and the rows'
    only in the limit. The order is needed to learn the dustbin's score: it is the same for every token,
    so scaling the columns first would cancel it.

    Parameters
    ----------
    scores : Tensor, (B, n, m)
        Score of each token for each cluster.
    dustbin : Tensor, ()
        Score of every token for the dustbin.
    rounds : int
        How often rows and columns are scaled.

    Returns
    -------
    Tensor, (B, n, m + 1)
        The last column is the dustbin's.
    """
    images, tokens, clusters = scores.shape
    mass = min(1.0, tokens / (clusters + 1))
    column_mass = scores.new_full((clusters + 1,), math.log(mass))
    column_mass[-1] = math.log(tokens - clusters * mass)
    plan = torch.cat([scores, dustbin.expand(images, tokens, 1)], dim=2)
    for _ in range(rounds):
        plan = plan.log_softmax(dim=2)
        plan = plan.log_softmax(dim=1) + column_mass
    return plan.exp()


def _perceptron(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs))
