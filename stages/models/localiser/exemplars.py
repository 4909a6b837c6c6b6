"""A few photos of every class, kept with the localiser: what its places look like.

A prototype says where in the embedding a class lies, not how near a photo
must be to look like it. The likeness to single photos of the class does, in
the space of frozen features, which training has not bent: it is evidence for
the class, and where nothing is alike the photo shows no place that is known.
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
"""A huge city gets fewer exemplars per class than configured, so that all of them stay below this."""
_NAMES = ("exemplars.vectors", "exemplars.centre")
_QUERIES_AT_ONCE = 32


@dataclass(frozen=True)
class Exemplars:
    """Unit vectors of some photos of each class.

    Attributes
    ----------
    vectors : Tensor of float16, shape (K, n, F)
        Features less `centre`, at unit length; of a class with fewer photos the last one repeated,
        zeros where it has none.
    centre : Tensor of float32, shape (F,)
        Mean feature of them all.
    """

    vectors: Tensor
    centre: Tensor

    @classmethod
    def of(cls, features: Tensor, class_id: npt.NDArray[np.int64], classes: int) -> Exemplars:
        """Return the exemplars that lie in `features` (E, F), sorted by their `class_id` (E,)."""
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
    def taken_from(cls, tensors: dict[str, Tensor]) -> Exemplars | None:
        """Return the exemplars among stored tensors, which are taken out; None if there are none."""
        held = [tensors.pop(name, None) for name in _NAMES]
        return None if held[0] is None or held[1] is None else cls(held[0], held[1])

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
            Classes of each query that are looked at; -1 for none.
        """
        found = np.full(class_id.shape, -1.0)
        for start in range(0, len(class_id), _QUERIES_AT_ONCE):
            some = slice(start, start + _QUERIES_AT_ONCE)
            queries = torch.as_tensor(features[some]).to(self.centre.device).float()
            unit = functional.normalize(queries - self.centre, dim=1)
            # Queries that come together look at the same classes: one product with all that any looks at.
            asked, place = np.unique(np.maximum(class_id[some], 0), return_inverse=True)
            vectors = self.vectors[torch.from_numpy(asked).to(unit.device)].float()
            cosines = (unit @ vectors.flatten(0, 1).T).view(len(unit), len(asked), -1).amax(dim=2)
            found[some] = np.take_along_axis(
                cosines.cpu().numpy(), place.reshape(class_id[some].shape), axis=1
            )
        return np.where(class_id >= 0, found, -1.0)


def choose(
    labels: npt.NDArray[np.integer[Any]],
    usable: npt.NDArray[np.bool_],
    most: int,
    random: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return rows of at most `most` photos of each class, drawn at random, and their classes, by class.

    Parameters
    ----------
    labels : ndarray of int, shape (rows,) or (rows, P)
        Class of every row, in each of P partitions; -1 for none.
    usable : ndarray of bool, shape (rows,)
        Rows to draw from.
    most : int
        Exemplars per class.
    random : numpy.random.Generator
        Decides.
    """
    columns = labels.reshape(len(labels), -1)
    row, column = np.nonzero((columns >= 0) & usable[:, None])
    class_id = columns[row, column].astype(np.int64)
    order = np.lexsort((random.random(len(row)), class_id))
    row, class_id = row[order], class_id[order]
    kept = np.arange(len(row)) - np.searchsorted(class_id, class_id) < most
    return row[kept], class_id[kept]
