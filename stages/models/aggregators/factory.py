"""Make the aggregator that the settings name."""

from __future__ import annotations

from stages.models.aggregators.base import Aggregator
from stages.models.aggregators.config import AggregatorKind, AggregatorSettings
from stages.models.aggregators.gem import GeM
from stages.models.aggregators.netvlad import NetVLAD
from stages.models.aggregators.salad import Salad

__all__ = [
    "Aggregator",
    "AggregatorKind",
    "AggregatorSettings",
    "GeM",
    "NetVLAD",
    "Salad",
    "make_aggregator",
]


def make_aggregator(settings: AggregatorSettings, channels: int, prefix: int) -> Aggregator:
    """Return an aggregator with random weights; `begin` sets the initial weights of training.

    Parameters
    ----------
    settings : AggregatorSettings
        Kind and size.
    channels : int
        Channels C of a token.
    prefix : int
        Tokens P before the patches; if there are any, the first is the class token.

    Raises
    ------
    ConfigError
        If local features would be reduced to more channels than they have.
    ValueError
        For ``pooled``, which needs no aggregator.
    """
    if settings.kind == "pooled":
        raise ValueError("pooled outputs need no aggregator")
    if settings.kind == "gem":
        return GeM(channels)
    settings.require_reduction(channels)
    if settings.kind == "netvlad":
        return NetVLAD(channels, settings.clusters, settings.channels)
    return Salad(
        channels, settings.clusters, settings.channels, settings.global_length, class_token=prefix > 0
    )
