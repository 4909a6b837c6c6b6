"""Exemplars: a few photos of every class, kept with the localiser to compare queries with.

A prototype says where in the embedding a class lies, but not how near a photo of it must be. The likeness to
single photos does, in the space of frozen features, which training does not change. It is evidence for the
class, and if no class is alike the photo probably shows an unknown place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

MOST_BYTES = 1 << 30
"""Most bytes of all exemplars: a huge city gets fewer per class than configured."""
_NAMES = ("exemplars.vectors", "exemplars.centre")
_QUERIES_AT_ONCE = 32


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
    """

    vectors: Tensor
    centre: Tensor

    @classmethod
    def of(cls, features: Tensor, class_id: npt.NDArray[np.int64], classes: int) -> Exemplars:
        """Return exemplars with these features (E, F), which are sorted by `class_id` (E,)."""
        vectors = torch.zeros(classes, 1, features.shape[1], dtype=torch.float16, device=features.device)
        if not len(features):
            return cls(vectors, vectors.new_zeros(features.shape[1], dtype=torch.float32))
        centre = features.float().mean(dim=0)
        unit = functional.normalize(features.float() - centre, dim=1).half()
        counts = np.bincount(class_id, minlength=classes)
        known = np.flatnonzero(counts)
        first = (np.cumsum(counts) - counts)[known]
        row = first[:, None] + np.minimum(np.arange(counts.max()), counts[known, None] - 1)
        vectors = vectors.repeat(1, row.shape[1], 1)
        vectors[torch.from_numpy(known).to(unit.device)] = unit[torch.from_numpy(row).to(unit.device)]
        return cls(vectors, centre)

    @classmethod
    def pop_from(cls, tensors: dict[str, Tensor]) -> Exemplars | None:
        """Remove the exemplars from stored tensors and return them; None if there are none."""
        vectors, centre = (tensors.pop(name, None) for name in _NAMES)
        return None if vectors is None or centre is None else cls(vectors, centre)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors under the names they have on disk."""
        return dict(zip(_NAMES, (self.vectors, self.centre), strict=True))

    def to(self, device: torch.device | str) -> Exemplars:
        """Return them on that device."""
        return Exemplars(self.vectors.to(device), self.centre.to(device))

    @torch.no_grad()
    def likeness(
        self, features: Tensor | npt.NDArray[np.floating[Any]], class_id: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """Return the best cosine of each query with any exemplar of each of its classes, -1 for class -1.

        Parameters
        ----------
        features : Tensor or ndarray, shape (B, F)
            Of the queries.
        class_id : ndarray of int64, shape (B, C)
            Classes to compare each query with; -1 for none.
        """
        likeness = np.full(class_id.shape, -1.0)
        for start in range(0, len(class_id), _QUERIES_AT_ONCE):
            some = slice(start, start + _QUERIES_AT_ONCE)
            queries = torch.as_tensor(features[some]).to(self.centre.device).float()
            unit = functional.normalize(queries - self.centre, dim=1)
            # Neighbouring queries share most classes: one product with all that any of them needs.
            asked, place = np.unique(np.maximum(class_id[some], 0), return_inverse=True)
            vectors = self.vectors[torch.from_numpy(asked).to(unit.device)].float()
            cosines = (unit @ vectors.flatten(0, 1).T).view(len(unit), len(asked), -1).amax(dim=2)
            likeness[some] = np.take_along_axis(
                cosines.cpu().numpy(), place.reshape(class_id[some].shape), axis=1
            )
        return np.where(class_id >= 0, likeness, -1.0)


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
