"""What made a store's features, as an identity that can be compared and explained."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cache.errors import StoreError


@dataclass(frozen=True)
class Recipe:
    """The settings that decide every value in a feature store.

    Attributes
    ----------
    backbone : str
        Name of the frozen backbone.
    weights : str
        The setting the weights came from ("pretrained", "random", a file name). It is
        kept for people; two recipes that differ in nothing else are the same recipe.
    weights_id : str
        SHA-256 of the weights.
    image_size : int
        Side in pixels of what the backbone sees.
    preprocessing : dict
        Resize, interpolation, mean and standard deviation.
    outputs : dict of str to int
        Pooled outputs, in order, with their length F; the tokens at a cut, ``cut<K>``, are one more.
    dtype : str
        How features are stored.
    precision : str
        How the backbone computed them.
    augment : dict or None
        Settings and seed of the augmentation; None for plain images.
    """

    backbone: str
    weights: str
    weights_id: str
    image_size: int
    preprocessing: dict[str, Any]
    outputs: dict[str, int]
    dtype: str
    precision: str
    augment: dict[str, Any] | None = None

    @property
    def id(self) -> str:
        """First 16 hex digits of the SHA-256 of the recipe's canonical JSON."""
        text = json.dumps(self._identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of every field."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Recipe from what `to_dict` gave.

        Raises
        ------
        StoreError
            If a field is missing or unknown.
        """
        expected = {field.name for field in dataclasses.fields(cls)}
        if set(values) != expected:
            odd = ", ".join(sorted(expected ^ set(values)))
            raise StoreError(
                f"a recipe has the fields {', '.join(sorted(expected))}; missing or unknown here: {odd}. "
                "The store was written by another version: run `pipeline extract --replace`"
            )
        return cls(**values)

    def differences(self, other: Recipe) -> list[str]:
        """One line per setting in which this recipe differs from a store's.

        Parameters
        ----------
        other : Recipe
            The recipe found in the store.

        Returns
        -------
        list of str
            Such as ``"image_size: 98 here, 224 in the store"``; empty for equal recipes.
        """
        here, there = _flat(self._identity()), _flat(other._identity())
        names = [*here, *(name for name in there if name not in here)]
        return [
            f"{name}: {here.get(name, 'absent')} here, {there.get(name, 'absent')} in the store"
            for name in names
            if here.get(name, "absent") != there.get(name, "absent")
        ]

    def _identity(self) -> dict[str, Any]:
        """Everything but where the weights were found; outputs as a list, since their order counts."""
        values = self.to_dict()
        del values["weights"]
        values["outputs"] = [f"{name}:{length}" for name, length in self.outputs.items()]
        return values


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
