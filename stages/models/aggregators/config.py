"""Settings of the aggregator; importing them does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from stages.errors import require

AggregatorKind = Literal["pooled", "gem", "netvlad", "salad"]


@dataclass(frozen=True)
class AggregatorSettings:
    """How local features are combined to one feature.

    Attributes
    ----------
    kind : {"pooled", "gem", "netvlad", "salad"}
        ``pooled``: the backbone's pooled outputs; ``gem``: generalised mean with a learned power;
        ``netvlad`` and ``salad``: sums over clusters, by soft assignment or optimal transport.
    clusters : int
        Number of clusters of ``netvlad`` and ``salad``.
    channels : int
        Length of the reduced local features of ``netvlad`` and ``salad``; 0: not reduced
        (``netvlad`` only).
    global_length : int
        Length of the class token's part of a ``salad`` feature; 0: none.
    """

    kind: AggregatorKind
    clusters: int
    channels: int
    global_length: int

    def __post_init__(self) -> None:
        kinds = get_args(AggregatorKind)
        require("train.aggregator.kind", self.kind, self.kind in kinds, " | ".join(kinds))
        require(
            "train.aggregator.clusters",
            self.clusters,
            2 <= self.clusters <= 4096,
            "within 2 and 4096, such as 64",
        )
        least = 1 if self.kind == "salad" else 0
        expected = "a positive number such as 128" if least else "0 (as they are) or a positive number"
        require("train.aggregator.channels", self.channels, self.channels >= least, expected)
        fits = self.global_length >= 0
        require(
            "train.aggregator.global_length",
            self.global_length,
            fits,
            "0 (none) or a positive number such as 256",
        )

    def require_reduction(self, channels: int) -> None:
        """Raise ConfigError if local features have fewer channels than they would be reduced to."""
        expected = f"at most {channels}, the channels of the backbone's local features"
        require("train.aggregator.channels", self.channels, self.channels <= channels, expected)
