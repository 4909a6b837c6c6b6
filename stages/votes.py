"""Scores of classes -> the best of the places that they speak for.

A place's score is that of the best of its classes, or their mean. Adding the
log probabilities of several partitions is multiplying probabilities, as HGE
and CPlaNet do; their mean ranks alike, and stays within the range of one.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stages.models.localiser.calibration import Calibration
from stages.models.localiser.topk import best_columns
from stages.partition.places import Ints, Places

Ranks = Iterable[tuple[int, slice, Tensor]]
"""Group by group: its number, class ids and log odds or cosines (B, classes)."""


def best_places(
    places: Places, votes: Ints, ranks: Ranks, top: int, *, odds: bool, calibration: Calibration | None
) -> tuple[Tensor, Tensor]:
    """Return the `top` best scores and place ids of each query, (B, top) each, with -inf and -1 for no more.

    Parameters
    ----------
    places : Places
        What is ranked.
    votes : ndarray of int64, shape (places, V)
        Classes that speak for each, -1 for none.
    ranks : Ranks
        Scores of the classes.
    top : int
        How many to return.
    odds : bool
        Whether these are log odds; places then get probabilities.
    calibration : Calibration or None
        Divides cosines by the temperature of each place's group.
    """
    # Of log odds, since probabilities near 1 would all be 1.
    parts = [(ids, functional.logsigmoid(rank) if odds else rank) for _, ids, rank in ranks]
    scores = place_scores(votes, parts, mean=places.summed)
    if calibration is not None:
        temperatures = np.array(calibration.temperatures)[places.group]
        scores = scores / torch.from_numpy(temperatures).to(scores.device)
    value, ids = best_columns(scores, top)
    missing = (0, top - value.shape[1])
    value = functional.pad(value, missing, value=-torch.inf)
    ids = functional.pad(ids, missing, value=-1)
    return value.exp().where(ids >= 0, value) if odds else value, ids


def place_scores(votes: Ints, parts: list[tuple[slice, Tensor]], *, mean: bool) -> Tensor:
    """Return the mean of each place's votes, or the best of them, (B, places) float64.

    Minus infinity is no vote: a class alone in its group says nothing, and the
    other partitions decide.
    """
    batch, classes = len(parts[0][1]), max(ids.stop for ids, _ in parts)
    # A last column for votes that a place does not have.
    every = parts[0][1].new_full((batch, classes + 1), -torch.inf, dtype=torch.float64)
    for ids, score in parts:
        every[:, ids] = score.double()
    best = every.new_full((batch, len(votes)), -torch.inf)
    total, said = torch.zeros_like(best), torch.zeros_like(best)
    for column in torch.from_numpy(np.ascontiguousarray(votes.T)).to(every.device):
        vote = every[:, column]
        if mean:
            known = vote > -torch.inf
            total, said = total + vote.where(known, 0.0), said + known
        else:
            best = torch.maximum(best, vote)
    return (total / said.clamp_min(1)).where(said > 0, best) if mean else best
