"""The best classes of a query: the highest scores of many, exactly, and of several groups taken together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stages.models.localiser.calibration import Calibration

_RUN = 64
"""Neighbouring columns that are first looked at by their maximum alone."""


@dataclass(frozen=True)
class Predictions:
    """The best places of each query, best first; in a grid these are the classes.

    Attributes
    ----------
    class_id : ndarray of int64, shape (B, top)
        Rows of the classes table, or of `Places` where several classes speak for one; -1 for want of more.
    score : ndarray of float32, shape (B, top)
        Probability within the class's group, cosine, or calibrated probability
        among the best classes of all groups; minus infinity where there is no class.
    positions : ndarray of float64, shape (B, top, 2)
        UTM east and north of the cells' centres in metres (4.21); NaN where there is no class.
    """

    class_id: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    positions: npt.NDArray[np.float64]


def best_columns(scores: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Return the `top` highest scores of each row and their columns, best first, both (B, top).

    The best columns lie in the runs of columns with the best maxima: finding
    those passes over the scores once, at the speed of memory, where a
    selection over all columns takes longer than the matrix product that made them.

    Parameters
    ----------
    scores : Tensor, shape (B, K)
        Any numbers but NaN.
    top : int
        How many to return; K if there are fewer.
    """
    columns = scores.shape[1]
    top, runs = min(top, columns), columns // _RUN
    if runs <= 2 * top:
        return scores.topk(top, dim=1)
    inside = scores[:, : runs * _RUN].view(len(scores), runs, _RUN)
    chosen = inside.amax(dim=2).topk(top, dim=1).indices
    picked = inside.gather(1, chosen[:, :, None].expand(-1, -1, _RUN)).flatten(1)
    value, place = torch.cat([picked, scores[:, runs * _RUN :]], dim=1).topk(top, dim=1)
    in_run = chosen.gather(1, (place // _RUN).clamp_max(top - 1)) * _RUN + place % _RUN
    return value, in_run.where(place < top * _RUN, place + (runs - top) * _RUN)


def merged(parts: Iterable[tuple[Tensor, Tensor]], top: int) -> tuple[Tensor, Tensor]:
    """Return the `top` best of several groups' (scores, ids), each (B, n), with -inf and -1 for want of more.

    Equal scores keep the order of the groups, on every machine.
    """
    values, ids = (torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True))
    value, order = values.sort(dim=1, descending=True, stable=True)
    value, found = value[:, :top], ids.gather(1, order)[:, :top]
    missing = (0, top - value.shape[1])
    return (
        torch.nn.functional.pad(value, missing, value=-torch.inf),
        torch.nn.functional.pad(found, missing, value=-1),
    )


def best_classes(
    ranks: Iterable[tuple[int, slice, Tensor]], top: int, queries: int, calibration: Calibration | None
) -> tuple[Tensor, Tensor]:
    """Return the `top` best scores and class ids over all groups, (queries, top) each, as `merged` does.

    Parameters
    ----------
    ranks : iterable of (group, slice of class ids, Tensor of shape (queries, classes))
        What each group's classes are ranked by.
    top : int
        How many to return.
    queries : int
        Their number, known even where no group has classes.
    calibration : Calibration or None
        Divides each group's scores by its temperature.
    """
    parts = [(torch.empty(queries, 0, dtype=torch.float64), torch.empty(queries, 0, dtype=torch.int64))]
    for group, classes, rank in ranks:
        value, index = best_columns(rank, top)
        value = value.double()
        if calibration is not None:
            # After the cut: within a group the calibration changes no order.
            value = value / calibration.temperatures[group]
        parts.append((value, index + classes.start))
        parts[0] = (parts[0][0].to(value.device), parts[0][1].to(value.device))
    return merged(parts, top)
