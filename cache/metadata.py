"""The zarr.json files of a store: read and checked without Zarr, which trusts what they say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cache.errors import StoreError
from cache.storage.paths import StoragePath
from cache.storage.remote import DESCRIPTION

REPLACE = "run `pipeline extract --replace` to compute the features again"
# What Zarr raises for metadata and chunks that it cannot read: almost anything.
ZARR_ERRORS = (ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError, AssertionError)
_KEYS = {"name": "default", "configuration": {"separator": "/"}}


def read_json(file: StoragePath, fix: str) -> dict[str, Any]:
    """Return the JSON object in a file; StoreError, which ends with `fix`, if it holds none."""
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{file} is missing: put it back from a copy of the store, or {fix}") from None
    except (ValueError, RecursionError) as error:
        content = error
    if not isinstance(content, dict):
        reason = content if isinstance(content, Exception) else "it holds no JSON object"
        raise StoreError(f"{file} is damaged ({reason}): put it back from a copy of the store, or {fix}")
    return content


def array_fault(
    folder: StoragePath, shape: tuple[int, ...], dtype: str, fill: object, chunk: list[int]
) -> str:
    """Return what is wrong with the zarr.json of an array, "" if nothing is.

    Chunks may be compressed or sharded by another program, but shape, data type, fill value and byte order
    decide what the values mean.
    """
    try:
        values = read_json(folder / DESCRIPTION, "")
    except StoreError:
        return "zarr.json is damaged" if (folder / DESCRIPTION).exists() else "zarr.json is missing"
    expected = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_key_encoding": _KEYS,
    }
    for name, value in expected.items():
        if values.get(name) != value:
            return f"zarr.json says {name} {values.get(name)!r}, expected {value!r}"
    codecs = values.get("codecs")
    plain = [codec.get("name") for codec in _objects(codecs)] == ["bytes"]
    # Another program that wrote every chunk may have chosen any fill value and chunks.
    if plain and (values.get("fill_value"), _chunk_shape(values)) != (fill, chunk):
        return f"zarr.json says another fill value or chunk shape, expected {fill!r} and {chunk}"
    endian = [value for name, value in _members(codecs) if name == "endian"]
    if not endian or set(map(str, endian)) != {"little"}:
        return "zarr.json says no little-endian codec"
    lengths = _chunk_shape(values)
    sound = len(lengths) == len(shape) and all(type(length) is int and length > 0 for length in lengths)
    return "" if sound else "zarr.json says no valid chunk shape"


def _chunk_shape(values: dict[str, Any]) -> list[Any]:
    try:
        return list(values["chunk_grid"]["configuration"]["chunk_shape"])
    except (TypeError, KeyError):
        return []


def _objects(values: object) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _members(value: object) -> Iterator[tuple[str, object]]:
    """Yield name and value of all members of nested JSON objects."""
    if isinstance(value, list):
        for item in value:
            yield from _members(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name, item
            yield from _members(item)
