"""Familiarity: whether a photo shows this city at all, however sure the heads are of a place in it.

The feature of a photo of the city has an exemplar at a small angle. Drawn pictures (noise, flat colours,
shuffled photos, streets of the toy city) are nearer to each other than to the city. Both angles make one
number, and photos of the city itself say how low it may be: photos compared without the exemplars of their
own place, and augmented views, which show known places in another light. No photo of another city is needed,
and none has to be held out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from stages.models.localiser.exemplars import Exemplars

Floats = npt.NDArray[np.float64]
Features = Tensor | npt.NDArray[np.floating[Any]]

LEAST_PROBES = 30
"""With fewer photos no threshold is fitted and no photo is rejected for being unfamiliar."""
_LEAST_ANGLE = 0.01
"""Radians; a copy of an exemplar is no more familiar than a photo at this angle."""
_SAMPLE = 2048
"""Exemplars, drawn at random, that kinds of drawn pictures are compared with."""
_APART = 0.9
"""AUROC from which the angle to exemplars tells a kind of picture from photos of other places in the city."""


def familiarity(nearest: Floats, elsewhere: Floats | None) -> Floats:
    """Return log(angle to the nearest drawn picture / angle to the nearest exemplar ** 2), (B,).

    Parameters
    ----------
    nearest : ndarray, shape (B,)
        Cosine with the nearest exemplar, of features as they are.
    elsewhere : ndarray, shape (B,), or None
        Cosine with the nearest drawn picture; None without any, when only the other angle counts.
    """
    other = 0.0 if elsewhere is None else _log_angle(elsewhere)
    return np.asarray(other - 2 * _log_angle(nearest))


@torch.no_grad()
def cosine_elsewhere(exemplars: Exemplars, features: Features) -> Floats | None:
    """Return the cosine of features (B, F) with the nearest drawn picture, (B,); None without any."""
    if exemplars.elsewhere is None or not len(exemplars.elsewhere):
        return None
    queries = torch.as_tensor(features).to(exemplars.centre.device).float()
    cosines = functional.normalize(queries, dim=1) @ exemplars.elsewhere.float().T
    nearest: Floats = cosines.amax(dim=1).cpu().numpy().astype(np.float64)
    return nearest


@torch.no_grad()
def with_elsewhere(exemplars: Exemplars, pictures: Tensor, kinds: npt.NDArray[np.str_]) -> Exemplars:
    """Return the exemplars with drawn pictures (E, F) of these kinds (E,).

    A kind that resembles the city is left out: the toy city's streets say nothing about elsewhere in a
    toy city.
    """
    from sklearn.metrics import roc_auc_score

    features, class_id = exemplars.features()
    some = np.random.default_rng(0).permutation(len(class_id))[:_SAMPLE]
    if len(np.unique(class_id[some])) < 2:
        return exemplars
    own = functional.normalize(features[torch.from_numpy(some).to(features.device)], dim=1)
    unit = functional.normalize(pictures.to(own.device).float(), dim=1)
    same = torch.from_numpy(class_id[some][:, None] == class_id[some][None]).to(own.device)
    city = (own @ own.T).masked_fill(same, -1.0).amax(dim=1).cpu().numpy()
    drawn = (unit @ own.T).amax(dim=1).cpu().numpy()
    kept = np.zeros(len(kinds), np.bool_)
    for kind in np.unique(kinds):
        cosines = drawn[kinds == kind]
        inside = np.repeat([True, False], [len(city), len(cosines)])
        kept |= (kinds == kind) & (roc_auc_score(inside, np.concatenate([city, cosines])) >= _APART)
    return replace(exemplars, elsewhere=unit[torch.from_numpy(kept).to(unit.device)].half())


def threshold_of(values: Floats, share: float) -> float | None:
    """Return the familiarity below which a `share` of the city's own photos lies; None for too few."""
    return float(np.quantile(values, share)) if len(values) >= LEAST_PROBES else None


def _log_angle(cosine: Floats) -> Floats:
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    return np.asarray(np.log(np.maximum(angle, _LEAST_ANGLE)))
