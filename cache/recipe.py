"""Recipe of a store: the settings that made its features, with an id and readable differences."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cache.errors import StoreError


@dataclass(frozen=True)
class Recipe:
    """The settings that decide every value in a feature store."""

    backbone: str
    weights: str  # the setting: "pretrained", "random" or a file name; for people, not part of the id
    weights_id: str  # SHA-256 of the weights
    image_size: int  # side of the backbone's input in pixels
    preprocessing: dict[str, Any]  # resize, interpolation, mean and standard deviation
    outputs: dict[str, int]  # in order, with their lengths F: pooled outputs, and tokens as ``cut<K>``
    dtype: str  # of the stored features
    precision: str  # of the backbone's computation
    augment: dict[str, Any] | None = None  # settings and seed; None for images without augmentation

    @property
    def id(self) -> str:
        """First 16 hex digits of the SHA-256 of the recipe's canonical JSON."""
        text = json.dumps(self._identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return every field as plain JSON values."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Return the recipe that `to_dict` described; StoreError if a field is missing or unknown."""
        expected = {field.name for field in dataclasses.fields(cls)}
        if set(values) != expected:
            wrong = ", ".join(sorted(expected ^ set(values)))
            raise StoreError(
                f"a recipe has the fields {', '.join(sorted(expected))}; missing or unknown here: {wrong}. "
                "The store was written by another version: run `pipeline extract --replace`"
            )
        return cls(**values)

    def differences(self, other: Recipe) -> list[str]:
        """Return one line per setting that differs from `other`, the recipe of a store.

        Such as ``"image_size: 98 here, 224 in the store"``; empty for equal recipes.
        """
        here, store = _flatten(self._identity()), _flatten(other._identity())
        return [
            f"{name}: {here.get(name, 'absent')} here, {store.get(name, 'absent')} in the store"
            for name in here | store
            if here.get(name, "absent") != store.get(name, "absent")
        ]

    def _identity(self) -> dict[str, Any]:
        """Return every field but `weights`; outputs as a list, because their order matters."""
        values = self.to_dict()
        del values["weights"]
        values["outputs"] = [f"{name}:{length}" for name, length in self.outputs.items()]
        return values


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
