"""Aggregators: the local features of an image -> one feature. Pure torch; they know nothing of files."""

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
    """Return an aggregator with random weights; `begin` gives it those that training begins with.

    Parameters
    ----------
    settings : AggregatorSettings
        Which, and how large.
    channels : int
        C, of a token.
    prefix : int
        P, tokens before the patches; if there are any, the first is the class token.

    Raises
    ------
    ConfigError
        If local features are to be reduced to more channels than they have.
    ValueError
        For ``pooled``, which the backbone's outputs are already.
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
