"""Exact nearest neighbours among the database photos, which are streamed from their store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from cache.reader import FeatureReader
from stages.models.backbones.spec import pooled_among
from stages.models.localiser.localiser import Localiser

_SCORES_IN_MEMORY = 1 << 24
"""Similarities in memory at once, however many the queries."""


@dataclass(frozen=True)
class Photos:
    """The most similar database photos of each query, best first.

    Attributes
    ----------
    rows : ndarray of int64, shape (Q, k)
        Database rows; -1 if there are fewer photos.
    similarity : ndarray of float32, shape (Q, k)
        Cosines; minus infinity for no photo.
    """

    rows: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]


@dataclass(frozen=True)
class PhotoSpace:
    """The vectors that photos are compared by: unit vectors of projected or of frozen features."""

    localiser: Localiser
    kind: Literal["projected", "frozen"]

    @property
    def length(self) -> int:
        """Length of a vector."""
        projected = self.kind == "projected"
        return int(self.localiser.meta["embedding_dim"]) if projected else self.localiser.pooled_length

    @property
    def inputs(self) -> tuple[str, ...]:
        """Outputs of the backbone that vectors are made of: all inputs, or only the pooled ones."""
        inputs = self.localiser.inputs
        return inputs if self.kind == "projected" else pooled_among(inputs)

    @torch.no_grad()
    def vectors(self, features: npt.NDArray[np.floating]) -> Tensor:
        """Return unit vectors (n, length) of features (n, F) that begin with `inputs`.

        Of several views of each photo (n, V, F), it is the mean of their vectors.
        """
        if self.kind == "projected":
            return self.localiser.embed(features)
        frozen = torch.from_numpy(features[..., : self.length])
        unit = functional.normalize(frozen.to(self.localiser.device).float(), dim=-1)
        return unit if unit.ndim == 2 else unit.mean(dim=1)


@torch.no_grad()
def nearest_photos(queries: Tensor, database: FeatureReader, space: PhotoSpace, count: int) -> Photos:
    """Return the `count` most similar photos of each query among the valid rows of the database.

    The database is read once per block of queries (Q, length; unit vectors), chunk by chunk. Of equally
    similar photos the lower row wins.
    """
    rows = torch.full((len(queries), count), -1, dtype=torch.int64, device=queries.device)
    similarity = torch.full((len(queries), count), -torch.inf, device=queries.device)
    step = max(1, _SCORES_IN_MEMORY // max(1, database.chunk_rows))
    for low in range(0, len(queries), step):
        some = slice(low, low + step)
        for numbers, vectors in stream(database, space):
            value, column = (queries[some] @ vectors.T).topk(min(count, len(vectors)), dim=1)
            value = torch.cat([similarity[some], value], dim=1)
            column = torch.cat([rows[some], numbers[column]], dim=1)
            best, order = value.sort(dim=1, descending=True, stable=True)
            similarity[some], rows[some] = best[:, :count], column.gather(1, order)[:, :count]
    return Photos(rows.cpu().numpy(), similarity.cpu().numpy())


def stream(database: FeatureReader, space: PhotoSpace) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the row numbers (n,) and unit vectors (n, length) of valid rows, chunk by chunk."""
    for start, stop in database.blocks():
        valid = np.flatnonzero(database.valid[start:stop])
        if len(valid):
            block = database.read(start, stop, space.inputs)
            vectors = space.vectors(block if len(valid) == len(block) else block[valid])
            yield torch.from_numpy(start + valid).to(vectors.device), vectors
