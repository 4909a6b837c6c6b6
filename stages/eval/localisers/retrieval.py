"""The nearest database photos of each query, exactly, with the database streamed from its store."""

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
from stages.models.backbones.registry import pooled_among
from stages.models.localiser.localiser import Localiser

_SCORES_IN_MEMORY = 1 << 24
"""Likenesses held at once: bounds what many queries cost."""


@dataclass(frozen=True)
class Photos:
    """The most alike database photos of each query, best first.

    Attributes
    ----------
    rows : ndarray of int64, shape (Q, k)
        Database rows; -1 where there are fewer photos than asked for.
    likeness : ndarray of float32, shape (Q, k)
        Cosines; minus infinity where there is no photo.
    """

    rows: npt.NDArray[np.int64]
    likeness: npt.NDArray[np.float32]


@dataclass(frozen=True)
class PhotoSpace:
    """What photos are compared by: unit vectors of projected or of frozen features."""

    localiser: Localiser
    kind: Literal["projected", "frozen"]

    @property
    def length(self) -> int:
        """Components of a vector."""
        projected = self.kind == "projected"
        return int(self.localiser.meta["embedding_dim"]) if projected else self.localiser.pooled_length

    @property
    def inputs(self) -> tuple[str, ...]:
        """The outputs that vectors are made of: all that the localiser takes, or the pooled alone."""
        inputs = self.localiser.inputs
        return inputs if self.kind == "projected" else pooled_among(inputs)

    @torch.no_grad()
    def vectors(self, features: npt.NDArray[np.floating]) -> Tensor:
        """Return unit vectors (n, length) of features (n, F), at whose head are `inputs`."""
        if self.kind == "projected":
            return self.localiser.embed(features)
        frozen = torch.from_numpy(features[:, : self.length])
        return functional.normalize(frozen.to(self.localiser.device).float(), dim=1)


@torch.no_grad()
def nearest_photos(queries: Tensor, database: FeatureReader, space: PhotoSpace, count: int) -> Photos:
    """Return the `count` most alike photos of each query among all sound rows of the database.

    The database passes by once per block of queries, chunk by chunk; equal
    likeness goes to the lower row.

    Parameters
    ----------
    queries : Tensor, shape (Q, length)
        Unit vectors.
    database : FeatureReader
        Bad rows are passed over.
    space : PhotoSpace
        What photos are compared by.
    count : int
        Photos per query.
    """
    rows = torch.full((len(queries), count), -1, dtype=torch.int64, device=queries.device)
    likeness = torch.full((len(queries), count), -torch.inf, device=queries.device)
    step = max(1, _SCORES_IN_MEMORY // max(1, database.chunk_rows))
    for low in range(0, len(queries), step):
        some = slice(low, low + step)
        for numbers, vectors in stream(database, space):
            value, column = (queries[some] @ vectors.T).topk(min(count, len(vectors)), dim=1)
            value = torch.cat([likeness[some], value], dim=1)
            column = torch.cat([rows[some], numbers[column]], dim=1)
            best, order = value.sort(dim=1, descending=True, stable=True)
            likeness[some], rows[some] = best[:, :count], column.gather(1, order)[:, :count]
    return Photos(rows.cpu().numpy(), likeness.cpu().numpy())


def stream(database: FeatureReader, space: PhotoSpace) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the numbers (n,) and unit vectors (n, length) of sound rows, chunk by chunk."""
    for start, stop in database.blocks():
        sound = np.flatnonzero(database.valid[start:stop])
        if len(sound):
            block = database.read(start, stop, space.inputs)
            vectors = space.vectors(block if len(sound) == len(block) else block[sound])
            yield torch.from_numpy(start + sound).to(vectors.device), vectors
