"""Exact nearest neighbours among the database photos, which are streamed from their store."""

from __future__ import annotations

import warnings
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
from stages.models.localiser.embedded import Embedded, Features, features_of
from stages.models.localiser.localiser import Localiser

_ROWS_IN_CACHE = 512
"""Photos converted at once on a CPU: as float32 they stay in its cache until the product is made."""
_ROWS_ON_A_GPU = 8192
_COSINES_WAITING = 1 << 18
_TINY = 1e-12


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
    def vectors(self, features: Features) -> Tensor:
        """Return unit vectors (n, length) of features (n, F) that begin with `inputs`.

        Of several views of each photo (n, V, F), it is the mean of their vectors.
        """
        if self.kind == "projected":
            return features.embeddings if isinstance(features, Embedded) else self.localiser.embed(features)
        frozen = torch.as_tensor(features_of(features)[..., : self.length])
        unit = functional.normalize(frozen.to(self.localiser.device).float(), dim=-1)
        return unit if unit.ndim == 2 else unit.mean(dim=1)

    @torch.no_grad()
    def cosines(self, queries: Tensor, features: Tensor) -> Tensor:
        """Return the cosines (Q, n) of unit vectors (Q, length) with photos of these features (n, F)."""
        if self.kind == "projected":
            return queries @ self.localiser.embed(features).T
        # Dividing Q x n products by n lengths takes less time than dividing n vectors by their lengths.
        frozen = features.to(queries.device).float()
        return (queries @ frozen.T).div_(torch.linalg.vector_norm(frozen, dim=1).clamp_min_(_TINY))


@torch.no_grad()
def nearest_photos(queries: Tensor, database: FeatureReader, space: PhotoSpace, count: int) -> Photos:
    """Return the `count` most similar photos of each query among the valid rows of the database.

    The database is read once, for all queries (Q, length; unit vectors). Of equally similar photos the lower
    row wins.
    """
    best = _BestPhotos.none(len(queries), count, queries.device)
    step = _ROWS_IN_CACHE if queries.device.type == "cpu" else _ROWS_ON_A_GPU
    for chunk, (start, stop) in enumerate(database.blocks()):
        outputs = [_tensor(database.mapped(name, chunk)) for name in space.inputs]
        invalid = None if database.valid[start:stop].all() else ~database.valid[start:stop]
        for low in range(0, stop - start, step):
            some = slice(low, low + step)
            parts = [output[some] for output in outputs]
            cosines = space.cosines(queries, parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
            if invalid is not None:
                cosines[:, torch.from_numpy(invalid[some]).to(cosines.device)] = -torch.inf
            best.add(cosines, start + low)
    best.merge()
    return Photos(best.rows.cpu().numpy(), best.similarity.cpu().numpy())


@dataclass
class _BestPhotos:
    """The best photos of each query so far: rows and similarity, both (Q, count), best first.

    Cosines of queries that may get a better photo wait until there are many: looking for these photos part
    by part would take longer than the products.
    """

    rows: Tensor
    similarity: Tensor
    waiting: list[tuple[Tensor, Tensor, Tensor]]
    _values: int = 0

    @classmethod
    def none(cls, queries: int, count: int, device: torch.device) -> _BestPhotos:
        """Return no photos, similar to minus infinity."""
        rows = torch.full((queries, count), -1, dtype=torch.int64, device=device)
        return cls(rows, torch.full((queries, count), -torch.inf, device=device), [])

    def add(self, cosines: Tensor, start: int) -> None:
        """Take the photos from row `start` on into account, by their cosines (Q, n)."""
        query = _true(cosines.amax(dim=1) > self.similarity[:, -1])
        if not len(query):
            return
        self.waiting.append((query, torch.full_like(query, start), cosines[query]))
        self._values += len(query) * cosines.shape[1]
        # Ranking is slow until there are photos to compare with: nearly every photo is better than none.
        if self._values > _COSINES_WAITING or self.similarity[0, -1].isinf():
            self.merge()

    def merge(self) -> None:
        """Rank the photos that wait among the best."""
        if not self.waiting:
            return
        width = max(cosines.shape[1] for _, _, cosines in self.waiting)
        padded = [
            (query, start, functional.pad(cosines, (0, width - cosines.shape[1]), value=-torch.inf))
            for query, start, cosines in self.waiting
        ]
        query, start, cosines = (torch.cat(parts) for parts in zip(*padded, strict=True))
        place = _true((cosines > self.similarity[query, -1:]).flatten())
        line = place // width
        self._rank(query[line], start[line] + place % width, cosines.flatten()[place])
        self.waiting, self._values = [], 0

    def _rank(self, query: Tensor, rows: Tensor, similarity: Tensor) -> None:
        queries, count = self.rows.shape
        own = torch.arange(queries, device=rows.device).repeat_interleave(count)
        query = torch.cat([own, query])
        rows = torch.cat([self.rows.flatten(), rows])
        similarity = torch.cat([self.similarity.flatten(), similarity])
        order = similarity.sort(descending=True, stable=True).indices
        order = order[query[order].sort(stable=True).indices]
        found = query.bincount(minlength=queries)
        place = torch.arange(len(order), device=order.device) - (found.cumsum(0) - found)[query[order]]
        kept = order[place < count]
        self.rows, self.similarity = rows[kept].view(queries, count), similarity[kept].view(queries, count)


def _true(mask: Tensor) -> Tensor:
    """Return the indices of true values (n,); on a CPU NumPy finds them several times as fast as PyTorch."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]


def _tensor(rows: npt.NDArray[np.floating]) -> Tensor:
    """Return a tensor on memory that is only read, which PyTorch warns about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(rows)


def stream(database: FeatureReader, space: PhotoSpace) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the row numbers (n,) and unit vectors (n, length) of valid rows, chunk by chunk."""
    for start, stop in database.blocks():
        valid = np.flatnonzero(database.valid[start:stop])
        if len(valid):
            block = database.read(start, stop, space.inputs)
            vectors = space.vectors(block if len(valid) == len(block) else block[valid])
            yield torch.from_numpy(start + valid).to(vectors.device), vectors
