"""Build frozen dataclasses from mappings; every value is checked against its field's type."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from stages.errors import ConfigError

Config = TypeVar("Config")


def build(config: type[Config], values: object, name: str = "") -> Config:
    """Return a dataclass filled from a mapping, each value checked against its field's type.

    Parameters
    ----------
    config
        A dataclass whose fields are int, float, str, bool, Literal, tuples, unions of those, or dataclasses.
    values
        The mapping: all fields without a default, and no other keys.
    name
        The mapping's name, which precedes its keys in errors.

    Raises
    ------
    ConfigError
        If a key is unknown, missing or its value has the wrong type.
    """
    if not isinstance(values, Mapping):
        raise _misfit(name, values, "a section of keys and values")
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, config)) if field.init}
    for key in values:
        if key not in fields:
            raise ConfigError(f"{_joined(name, key)} is not a known setting: {_hint(key, list(fields))}")
    hints = get_type_hints(config)
    arguments = {}
    for key, field in fields.items():
        if key in values:
            arguments[key] = convert(hints[key], values[key], _joined(name, key))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(
                f"{_joined(name, key)} is missing: expected {_words(hints[key])}; add it to params.yaml"
            )
    return config(**arguments)


def convert(hint: Any, value: object, name: str) -> Any:
    """Return a YAML value as the annotated type.

    An int is accepted for a float; a bool only for a bool.

    Parameters
    ----------
    hint
        A resolved type annotation.
    value
        The value as YAML gives it.
    name
        "section.key", for errors.

    Raises
    ------
    ConfigError
        If the value does not fit.
    """
    origin = get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type[Any], hint), value, name)
    if origin is Literal:
        fits = any(value == choice and type(value) is type(choice) for choice in get_args(hint))
    elif origin in (typing.Union, types.UnionType):
        return _convert_union(hint, value, name)
    elif origin is tuple:
        return _convert_tuple(hint, value, name)
    elif hint is float:
        number = _number(value)
        if number is not None:
            return number
        fits = False
    else:
        fits = type(value) is hint
    if not fits:
        raise _misfit(name, value, _words(hint))
    return value


def _convert_union(hint: Any, value: object, name: str) -> Any:
    for member in get_args(hint):
        try:
            return convert(member, value, name)
        except ConfigError:
            continue
    raise _misfit(name, value, _words(hint))


def _convert_tuple(hint: Any, value: object, name: str) -> tuple[Any, ...]:
    members = get_args(hint)
    if not isinstance(value, list | tuple):
        raise _misfit(name, value, _words(hint))
    if len(members) == 2 and members[1] is Ellipsis:
        members = (members[0],) * len(value)
    if len(members) != len(value):
        raise _misfit(name, value, _words(hint))
    pairs = zip(members, value, strict=True)
    return tuple(convert(member, item, f"{name}[{i}]") for i, (member, item) in enumerate(pairs))


def _number(value: object) -> float | None:
    """Return the finite number that a YAML value means, or None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and "e" in value.lower():
        # YAML 1.1 reads 1e-4 as text, YAML 1.2 as a number; users mean the number.
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _words(hint: Any) -> str:
    """Return an annotation in plain words."""
    plain = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        type(None): "null",
    }
    if hint in plain:
        return plain[hint]
    members = get_args(hint)
    if get_origin(hint) is Literal:
        return " | ".join(str(member) for member in members)
    if get_origin(hint) is tuple:
        if len(members) == 2 and members[1] is Ellipsis:
            return f"a list, each item {_words(members[0])}"
        return f"a list of {len(members)}: {', '.join(_words(member) for member in members)}"
    if members:
        return " or ".join(_words(member) for member in members)
    return "a section of keys and values"


def _misfit(name: str, value: object, expected: str) -> ConfigError:
    return ConfigError(
        f"{name or 'params.yaml'} is {shown(value)}: expected {expected}; edit it in params.yaml"
    )


def _hint(key: object, known: list[str]) -> str:
    close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"expected {', '.join(known)}"


def _joined(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def shown(value: object) -> str:
    """Return a YAML value as error messages show it."""
    return "empty" if value is None else repr(value)
