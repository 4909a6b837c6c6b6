"""Features together with their embeddings, so that several localisers share one pass through the tail."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stages.errors import InputError

if TYPE_CHECKING:
    from stages.models.localiser.localiser import Localiser

_VALUES_CHECKED = 1 << 22
"""Values checked at once for being finite, however long the features."""


@dataclass(frozen=True)
class Embedded:
    """Features (B, F) or (B, V, F), their embeddings (B, D), and how many seconds these took."""

    features: Tensor | npt.NDArray[np.floating[Any]]
    embeddings: Tensor
    seconds: float = 0.0

    @classmethod
    def of(cls, localiser: Localiser, features: Tensor | npt.NDArray[np.floating[Any]]) -> Embedded:
        """Return features with their embeddings.

        Raises
        ------
        InputError
            If a feature has the wrong length or is not finite.
        """
        started = time.perf_counter()
        require_length(features, localiser.meta)
        stored = torch.as_tensor(features)
        require_finite(stored)
        embeddings = localiser.embed(stored)
        return cls(features, embeddings, time.perf_counter() - started)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: slice) -> Embedded:
        return Embedded(self.features[rows], self.embeddings[rows])


Features = Tensor | npt.NDArray[np.floating[Any]] | Embedded
"""Features (B, F), or of several views of each query (B, V, F), perhaps with their embeddings."""


def features_of(features: Features) -> Tensor | npt.NDArray[np.floating[Any]]:
    """Return the features alone."""
    return features.features if isinstance(features, Embedded) else features


def require_length(features: Tensor | npt.NDArray[np.floating[Any]], meta: dict[str, Any]) -> None:
    """Raise InputError unless features have the length that a localiser with this meta takes."""
    expected = meta["features"]
    if features.ndim not in (2, 3) or features.shape[-1] != expected:
        raise InputError(
            f"features of shape {tuple(features.shape)}, expected (n, {expected}): "
            f"outputs {', '.join(meta['inputs'])} of {meta['recipe']['backbone']}"
        )


def require_finite(features: Tensor) -> None:
    """Raise InputError if any of the features (b, F) or (b, V, F) is not finite."""
    for part in torch.split(features, max(1, _VALUES_CHECKED // max(1, features[:1].numel()))):
        # A sum is finite only if all its terms are, and takes a tenth of the time of checking each. Sums of
        # large finite float64 numbers may overflow, so these are checked one by one.
        wide = torch.float32 if part.dtype == torch.float16 else torch.float64
        if not part.sum(dtype=wide).isfinite() and not part.isfinite().all():
            raise InputError(
                "a feature is not finite: leave out the rows that the store's ledger lists as bad"
            )
