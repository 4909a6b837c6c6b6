"""The highest of many scores: of one group, and of several groups together."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from stages.models.localiser.calibration import Calibration

_RUN = 64
"""Columns in a run, of which only the maximum is looked at first."""


def best_columns(scores: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Return the `top` highest scores of each row (B, K) and their columns, best first, both (B, top).

    The best columns lie in the runs of columns with the highest maxima. Finding these passes over the scores
    once, at the speed of memory; selecting among all columns takes longer than the matrix product that made
    them. Scores must not be NaN; all K are returned if there are fewer than `top`.
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


def merge_groups(parts: Iterable[tuple[Tensor, Tensor]], top: int) -> tuple[Tensor, Tensor]:
    """Return the `top` best of several groups' (scores, ids), each (B, n), padded with -inf and -1.

    Equal scores keep the order of the groups, on every machine.
    """
    values, ids = (torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True))
    value, order = values.sort(dim=1, descending=True, stable=True)
    value, ids = value[:, :top], ids.gather(1, order)[:, :top]
    missing = (0, top - value.shape[1])
    return (
        torch.nn.functional.pad(value, missing, value=-torch.inf),
        torch.nn.functional.pad(ids, missing, value=-1),
    )


def best_classes(
    ranks: Iterable[tuple[int, slice, Tensor]], top: int, queries: int, calibration: Calibration | None
) -> tuple[Tensor, Tensor]:
    """Return the `top` best scores and class ids over all groups, each (queries, top), padded with -inf, -1.

    `ranks` has each group's number, class ids and scores (queries, classes); a calibration divides these by
    the group's temperature.
    """
    parts = [(torch.empty(queries, 0, dtype=torch.float64), torch.empty(queries, 0, dtype=torch.int64))]
    for group, classes, rank in ranks:
        value, index = best_columns(rank, top)
        value = value.double()
        if calibration is not None:
            # After the selection: dividing by one temperature changes no order within a group.
            value = value / calibration.temperatures[group]
        parts.append((value, index + classes.start))
        parts[0] = (parts[0][0].to(value.device), parts[0][1].to(value.device))
    return merge_groups(parts, top)
