"""Errors of settings and data; each message says how to fix the fault."""

from __future__ import annotations

from cache.errors import PlacecacheError


class ConfigError(PlacecacheError):
    """A parameter is unknown, missing, of the wrong type or out of range."""


class InputError(PlacecacheError):
    """The given data cannot be used."""


class WeightsError(PlacecacheError):
    """A backbone's weights are missing or do not fit."""


def require(name: str, value: object, holds: bool, expected: str) -> None:
    """Raise ConfigError unless a parameter's value is valid.

    Parameters
    ----------
    name : str
        The parameter as params.yaml names it, such as "train.margin".
    value : object
        Its value.
    holds : bool
        Whether the value is valid.
    expected : str
        Which values are.
    """
    if not holds:
        raise ConfigError(f"{name} is {value}: expected {expected}; edit it in params.yaml")
