"""What answers need beside the weights: exemplars, and how familiar a photo of the city has to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.storage.paths import StoragePath
from stages.extract.elsewhere import Elsewhere
from stages.models.localiser.evidence import exemplar_scores
from stages.models.localiser.exemplar_photos import ExemplarPhotos
from stages.models.localiser.exemplars import MOST_BYTES, Exemplars, choose_exemplars
from stages.models.localiser.familiarity import threshold_of, with_elsewhere
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.scoring import best_scores
from stages.partition.places import Places
from stages.train.config import TrainConfig
from stages.train.data.load import load_rows
from stages.train.prepare import Files

Mask = npt.NDArray[np.bool_]
_PROBES = 1000
"""Photos, and as many views, whose familiarity sets the threshold."""


def load_exemplars(
    config: TrainConfig,
    files: Files,
    rows: Mask,
    random: np.random.Generator,
    device: torch.device,
    elsewhere: StoragePath | None,
) -> Exemplars | None:
    """Return exemplars of each place drawn from the marked rows, with the pictures drawn at `elsewhere`.

    None where no exemplars are configured.
    """
    places, reader = Places.of(files.classes), files.reader
    if not config.exemplars or not len(places):
        return None
    bytes_of_one_each = 2 * reader.length(files.pooled) * len(places)
    most = min(config.exemplars, max(1, MOST_BYTES // bytes_of_one_each))
    labels = files.labels if places.votes is None else places.at(files.manifest.positions())
    chosen, class_id = choose_exemplars(labels, rows, most, random)
    wanted = np.zeros(reader.rows, np.bool_)
    wanted[chosen] = True
    features = load_rows(reader, wanted, files.pooled, device)
    place = np.searchsorted(np.flatnonzero(wanted), chosen)
    exemplars = replace(
        Exemplars.of(features[torch.from_numpy(place).to(device)], class_id, len(places)),
        photos=ExemplarPhotos.of(files.manifest, chosen, class_id),
    )
    pictures = None if elsewhere is None else Elsewhere.load(elsewhere, reader.recipe)
    if pictures is None:
        return exemplars
    joined = np.concatenate([pictures.features[name] for name in files.pooled], axis=1)
    return with_elsewhere(exemplars, torch.from_numpy(joined).to(device), pictures.kinds)


def fit_familiarity_threshold(localiser: Localiser, files: Files, rows: Mask, share: float) -> float | None:
    """Return the familiarity below which a `share` of the marked photos and of their views lies.

    Each photo is compared as if its place had no exemplar: a photo of a known place seen on a new day is
    about as far from the exemplars as one of the same day from those of other places. Views are compared with
    all exemplars. None for too few photos or places, or without exemplars.
    """
    if localiser.exemplars is None or localiser.exemplars.lengths is None or len(localiser.places) < 2:
        return None
    place_id = localiser.places.at(files.manifest.positions())
    known = rows & (place_id >= 0)
    photos = _some(known)
    values = [
        _familiarity(
            localiser, load_rows(files.reader, photos, files.inputs, localiser.device), place_id[photos]
        )
    ]
    if files.views is not None and files.plan is not None:
        views = _some(known[files.plan.row] & files.views.valid)
        features = load_rows(files.views, views, files.inputs, localiser.device)
        values.append(_familiarity(localiser, features, None))
    return threshold_of(np.concatenate(values), share)


def _some(wanted: Mask) -> Mask:
    """Return at most `_PROBES` of the marked rows, drawn at random."""
    chosen = np.zeros(len(wanted), np.bool_)
    chosen[np.random.default_rng(0).permutation(np.flatnonzero(wanted))[:_PROBES]] = True
    return chosen


def _familiarity(
    localiser: Localiser, features: Tensor, without: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.float64]:
    """Return the familiarity of each feature, not compared with the exemplars of the place `without`."""
    candidates = int(localiser.meta["fusion"]["settings"]["candidates"])
    ids, _ = best_scores(localiser, features, candidates + (without is not None), "cosine", None)
    if without is not None:
        ids = np.where(ids == without[:, None], -1, ids)
    scores = exemplar_scores(localiser, features, ids)
    return np.empty(0) if scores is None else scores.familiarity()
