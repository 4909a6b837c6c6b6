"""Exemplars: a few photos of every class, kept with the localiser to compare queries with.

A prototype says where in the embedding a class lies, but not how near a photo of it must be. The likeness to
single photos does, in the space of frozen features, which training does not change. It is evidence for the
class. Cosines of centred features tell places of one city apart; cosines of the features as they are tell
this city from all other pictures (`stages.models.localiser.familiarity`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from stages.models.localiser.exemplar_photos import ExemplarPhotos

MOST_BYTES = 1 << 30
"""Most bytes of all exemplars: a huge city gets fewer per class than configured."""
_NAMES = ("exemplars.vectors", "exemplars.centre", "exemplars.lengths", "exemplars.elsewhere")
_QUERIES_AT_ONCE = 32
_TINY = 1e-12

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Exemplars:
    """Unit vectors of some photos of each class.

    Attributes
    ----------
    vectors : Tensor of float16, shape (K, n, F)
        Features minus `centre`, at unit length. A class with fewer photos repeats the last one; zeros if it
        has none.
    centre : Tensor of float32, shape (F,)
        Mean feature of all exemplars.
    lengths : Tensor of float32, shape (K, n, 2), or None
        Of each feature minus `centre`, and of the feature; 0 without a photo. None in older localisers.
    elsewhere : Tensor of float16, shape (E, F), or None
        Features of drawn pictures that show no city, at unit length.
    photos : ExemplarPhotos or None
        Which photos they are; None in older localisers.
    """

    vectors: Tensor
    centre: Tensor
    lengths: Tensor | None = None
    elsewhere: Tensor | None = None
    photos: ExemplarPhotos | None = None

    @classmethod
    def of(cls, features: Tensor, class_id: npt.NDArray[np.int64], classes: int) -> Exemplars:
        """Return exemplars with these features (E, F), which are sorted by `class_id` (E,)."""
        vectors = torch.zeros(classes, 1, features.shape[1], dtype=torch.float16, device=features.device)
        if not len(features):
            return cls(vectors, vectors.new_zeros(features.shape[1], dtype=torch.float32))
        centre = features.float().mean(dim=0)
        away = features.float() - centre
        unit = functional.normalize(away, dim=1).half()
        norms = torch.stack([away.norm(dim=1), features.float().norm(dim=1)], dim=1)
        counts = np.bincount(class_id, minlength=classes)
        known = np.flatnonzero(counts)
        first = (np.cumsum(counts) - counts)[known]
        row = first[:, None] + np.minimum(np.arange(counts.max()), counts[known, None] - 1)
        vectors = vectors.repeat(1, row.shape[1], 1)
        lengths = vectors.new_zeros(*vectors.shape[:2], 2, dtype=torch.float32)
        places = torch.from_numpy(known).to(unit.device)
        photos = torch.from_numpy(row).to(unit.device)
        vectors[places], lengths[places] = unit[photos], norms[photos]
        return cls(vectors, centre, lengths)

    @classmethod
    def pop_from(cls, tensors: dict[str, Tensor]) -> Exemplars | None:
        """Remove the exemplars from stored tensors and return them; None if there are none."""
        vectors, centre, lengths, elsewhere = (tensors.pop(name, None) for name in _NAMES)
        if vectors is None or centre is None:
            return None
        return cls(vectors, centre, lengths, elsewhere)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors under the names they have on disk."""
        parts = (self.vectors, self.centre, self.lengths, self.elsewhere)
        return {name: part for name, part in zip(_NAMES, parts, strict=True) if part is not None}

    def to(self, device: torch.device | str) -> Exemplars:
        """Return them on that device."""
        lengths, elsewhere = (
            None if part is None else part.to(device) for part in (self.lengths, self.elsewhere)
        )
        return Exemplars(self.vectors.to(device), self.centre.to(device), lengths, elsewhere, self.photos)

    @torch.no_grad()
    def compare(
        self, features: Tensor | npt.NDArray[np.floating[Any]], class_id: npt.NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        """Return the best cosines of each query with any exemplar of each of its classes, -1 for class -1.

        The first are cosines of centred features, the likeness; the second of features as they are, -1 in
        older localisers.

        Parameters
        ----------
        features : Tensor or ndarray, shape (B, F)
            Of the queries.
        class_id : ndarray of int64, shape (B, C)
            Classes to compare each query with; -1 for none.
        """
        centred, plain = np.full(class_id.shape, -1.0), np.full(class_id.shape, -1.0)
        for start in range(0, len(class_id), _QUERIES_AT_ONCE):
            some = slice(start, start + _QUERIES_AT_ONCE)
            queries = torch.as_tensor(features[some]).to(self.centre.device).float()
            # Neighbouring queries share most classes: one product with all that any of them needs.
            asked, place = np.unique(np.maximum(class_id[some], 0), return_inverse=True)
            for target, cosines in zip(
                (centred, plain), self._cosines(queries, torch.from_numpy(asked)), strict=False
            ):
                best = cosines.amax(dim=2).cpu().numpy()
                target[some] = np.take_along_axis(best, place.reshape(class_id[some].shape), axis=1)
        return np.where(class_id >= 0, centred, -1.0), np.where(class_id >= 0, plain, -1.0)

    def _cosines(self, queries: Tensor, classes: Tensor) -> Iterator[Tensor]:
        """Yield cosines (B, classes, n) of centred features and, if lengths are known, of features."""
        classes = classes.to(queries.device)
        away = queries - self.centre
        norms = away.norm(dim=1).clamp_min(_TINY)[:, None, None]
        vectors = self.vectors[classes].float()
        centred = ((away / norms[:, 0]) @ vectors.flatten(0, 1).T).view(len(away), len(classes), -1)
        yield centred
        if self.lengths is None:
            return
        # q.f = (q - c).(f - c) + q.c + f.c - c.c, and f.c follows from the two lengths of an exemplar.
        apart, length = self.lengths[classes].unbind(dim=2)
        offset = (length.square() - apart.square() - self.centre.square().sum()) / 2
        product = norms * apart * centred + (queries @ self.centre)[:, None, None] + offset
        plain = product / (queries.norm(dim=1).clamp_min(_TINY)[:, None, None] * length.clamp_min(_TINY))
        yield plain.clamp(-1, 1).where(length > 0, -1.0)

    @torch.no_grad()
    def most_alike(
        self, features: npt.NDArray[np.floating[Any]], place_id: npt.NDArray[np.int64], count: int
    ) -> list[tuple[int, float]]:
        """Return the photos of places (P,) that are most like a query, best first, with their likeness.

        `features` (V, F) are those of the query's views, whose cosines are averaged. There are none where the
        photos are unknown.
        """
        if self.photos is None:
            return []
        queries = torch.as_tensor(features).to(self.centre.device).float()
        cosines = next(self._cosines(queries, torch.from_numpy(place_id))).mean(dim=0).cpu().numpy()
        likeness: dict[int, float] = {}
        for row, place in zip(cosines, place_id.tolist(), strict=True):
            photos = self.photos.of_place(place)
            photo_of = range(photos.start, photos.stop)
            likeness |= dict(zip(photo_of, row[: len(photo_of)].tolist(), strict=True))
        best = sorted(likeness, key=lambda photo: -likeness[photo])
        first = {
            self.photos.keys[photo].as_py(): photo for photo in reversed(best)
        }  # a photo may lie in several
        return [(photo, likeness[photo]) for photo in best if photo in first.values()][:count]

    def features(self) -> tuple[Tensor, npt.NDArray[np.int64]]:
        """Return the features (E, F) of the exemplars and their classes (E,); nothing without lengths."""
        if self.lengths is None:
            return self.vectors[:0].flatten(0, 1), np.empty(0, np.int64)
        known = self.lengths[:, :, 1] > 0
        features = self.centre + self.lengths[known][:, :1] * self.vectors[known].float()
        return features, known.nonzero()[:, 0].cpu().numpy()


def choose_exemplars(
    labels: npt.NDArray[np.integer[Any]],
    usable: npt.NDArray[np.bool_],
    most: int,
    random: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw at most `most` photos of each class; return their rows and classes, sorted by class.

    `labels` (rows,) or (rows, P) are class ids, -1 for none; only rows marked `usable` (rows,) are drawn.
    """
    columns = labels.reshape(len(labels), -1)
    row, column = np.nonzero((columns >= 0) & usable[:, None])
    class_id = columns[row, column].astype(np.int64)
    order = np.lexsort((random.random(len(row)), class_id))
    row, class_id = row[order], class_id[order]
    kept = np.arange(len(row)) - np.searchsorted(class_id, class_id) < most
    return row[kept], class_id[kept]
