"""The settings of aggregation; importing this imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from stages.errors import require

AggregatorKind = Literal["pooled", "gem", "netvlad", "salad"]


@dataclass(frozen=True)
class AggregatorSettings:
    """How local features become one feature.

    Attributes
    ----------
    kind : {"pooled", "gem", "netvlad", "salad"}
        ``pooled``: the backbone's own pooled outputs; ``gem``: a generalised
        mean with a learned power; ``netvlad`` and ``salad``: sums over
        clusters of local features, soft assignment or optimal transport.
    clusters : int
        Of ``netvlad`` and ``salad``.
    channels : int
        Length to which ``netvlad`` and ``salad`` reduce local features; 0
        leaves them as they are (``netvlad`` only).
    global_length : int
        ``salad``: length of what the class token adds to the feature; 0: nothing.
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
        """Check that local features of so many channels can be reduced to `self.channels`.

        Raises
        ------
        ConfigError
            If that is more than there are.
        """
        expected = f"at most {channels}, the channels that the backbone's local features have"
        require("train.aggregator.channels", self.channels, self.channels <= channels, expected)
