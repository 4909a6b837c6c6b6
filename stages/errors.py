"""What goes wrong with settings and data, in words that name the way out."""

from __future__ import annotations

from cache.errors import PlacecacheError


class ConfigError(PlacecacheError):
    """A parameter is unknown, missing, of the wrong type or out of range."""


class InputError(PlacecacheError):
    """The data given cannot be used."""


class WeightsError(PlacecacheError):
    """A backbone's weights cannot be had or do not fit."""
