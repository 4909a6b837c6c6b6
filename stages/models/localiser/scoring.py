"""Scores of places for features: the heads of all groups, block by block.

Where several classes cover one place (several partitions or headings), its score is the best of theirs or the
mean. The mean of log probabilities ranks as their sum does, which is how HGE and CPlaNet multiply the
probabilities of several partitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from stages.models.heads.heads import log_odds
from stages.models.localiser.calibration import Calibration
from stages.models.localiser.embedded import Embedded, Features
from stages.models.localiser.topk import best_classes, best_columns
from stages.partition.places import Ints, Places

if TYPE_CHECKING:
    from stages.models.localiser.localiser import Localiser

Score = Literal["softmax", "cosine", "calibrated"]
GroupScores = Iterable[tuple[int, slice, Tensor]]
"""Group by group: its number, class ids and log odds or cosines (B, classes)."""
_SCORES_IN_MEMORY = 1 << 24
"""Scores of one group in memory at once, however large the city."""


@torch.no_grad()
def best_scores(
    localiser: Localiser,
    features: Features,
    top: int,
    score: Score,
    calibration: Calibration | None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the best `top` place ids of each feature over all groups and their scores, each (B, top).

    Where there are fewer, ids are -1 and scores minus infinity. A "calibrated" score needs the calibration
    and is evidence: a log probability up to a constant.

    Raises
    ------
    InputError
        If a feature has the wrong length or is not finite.
    """
    blocks = _blocks(localiser, features)
    best = [_best(localiser, block.embeddings, top, score, calibration) for block in blocks]
    ids, values = zip(*best, strict=True)
    return torch.cat(ids).numpy(), torch.cat(values).numpy()


def _blocks(localiser: Localiser, features: Features) -> Iterator[Embedded]:
    """Yield features with embeddings, as many rows at a time as their scores fit in memory."""
    widest = max((len(head.prototypes) for head in localiser.heads), default=1)
    if localiser.places.votes is not None:
        widest = len(localiser.classes) + 3 * len(localiser.places)
    rows = max(1, min(8192, _SCORES_IN_MEMORY // max(1, widest)))
    for start in range(0, max(1, len(features)), rows):
        block = features[start : start + rows]
        yield block if isinstance(block, Embedded) else Embedded.of(localiser, block)


def _best(
    localiser: Localiser, embeddings: Tensor, top: int, score: Score, calibration: Calibration | None
) -> tuple[Tensor, Tensor]:
    """Return place ids and scores (b, top) of a block; a calibrated score is evidence."""
    votes = localiser.places.votes
    scores, odds = _group_scores(localiser, embeddings, score), score == "softmax"
    if votes is not None:
        best, ids = best_places(localiser.places, votes, scores, top, odds=odds, calibration=calibration)
        return ids.cpu(), best.cpu()
    best, ids = best_classes(scores, top, len(embeddings), calibration)
    return ids.cpu(), (best.sigmoid().where(ids >= 0, best) if odds else best).cpu()


def _group_scores(localiser: Localiser, embeddings: Tensor, score: Score) -> GroupScores:
    """Yield log odds or cosines of every group that has classes."""
    for group, head in enumerate(localiser.heads):
        if len(head.prototypes):
            odds = score == "softmax"
            scores = log_odds(head(embeddings)) if odds else localiser.cosines(embeddings, group)
            yield group, localiser.classes.group_slice(group), scores


def best_places(
    places: Places,
    votes: Ints,
    group_scores: GroupScores,
    top: int,
    *,
    odds: bool,
    calibration: Calibration | None,
) -> tuple[Tensor, Tensor]:
    """Return the `top` best scores and place ids of each query, (B, top) each, padded with -inf and -1.

    `votes` (places, V) are the classes that cover each place, -1 for none. With `odds` the group scores are
    log odds and places get probabilities; a calibration divides cosines by the temperature of each place's
    group.
    """
    # From log odds: probabilities near 1 would all round to 1.
    parts = [(ids, functional.logsigmoid(score) if odds else score) for _, ids, score in group_scores]
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

    Minus infinity is no vote: a class alone in its group says nothing, and the other partitions decide.
    """
    batch, classes = parts[0][1].shape[0], max(ids.stop for ids, _ in parts)
    # The last column stays minus infinity: -1, no class, points to it.
    scores_of_classes = parts[0][1].new_full((batch, classes + 1), -torch.inf, dtype=torch.float64)
    for ids, score in parts:
        scores_of_classes[:, ids] = score.double()
    best = scores_of_classes.new_full((batch, len(votes)), -torch.inf)
    total, voters = torch.zeros_like(best), torch.zeros_like(best)
    for column in torch.from_numpy(np.ascontiguousarray(votes.T)).to(scores_of_classes.device):
        vote = scores_of_classes[:, column]
        if mean:
            known = vote > -torch.inf
            total, voters = total + vote.where(known, 0.0), voters + known
        else:
            best = torch.maximum(best, vote)
    return (total / voters.clamp_min(1)).where(voters > 0, best) if mean else best
