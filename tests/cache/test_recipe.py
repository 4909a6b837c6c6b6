"""Recipes: every setting that decides a value tells two of them apart."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from cache.errors import RecipeMismatch
from cache.recipe import Recipe
from cache.store import open_store
from tests.cache.test_store import RECIPE, filled

OTHER = {
    "backbone": "large",
    "weights_id": "cd" * 32,
    "image_size": 56,
    "preprocessing": {"resize": 32, "mean": [0.5, 0.5, 0.4]},
    "outputs": {"cls": 6, "avg": 5},
    "dtype": "float32",
    "precision": "bfloat16",
    "augment": {"seed": 1},
}


@pytest.mark.parametrize("name", OTHER)
def test_each_setting_makes_another_recipe(name):
    other = replace(RECIPE, **{name: OTHER[name]})
    assert other.id != RECIPE.id
    assert other.differences(RECIPE)
    assert all(difference.startswith(name) for difference in other.differences(RECIPE))


def test_only_the_name_of_the_weights_does_not_matter():
    assert {field.name for field in fields(Recipe)} - set(OTHER) == {"weights"}
    assert replace(RECIPE, weights="elsewhere.pth").differences(RECIPE) == []


def test_features_of_another_precision_are_not_mixed(tmp_path, monkeypatch):
    path = tmp_path / "database.zarr"
    filled(path)
    monkeypatch.setattr("tests.cache.test_store.RECIPE", replace(RECIPE, precision="bfloat16"))
    with pytest.raises(RecipeMismatch, match="precision: bfloat16 here, float32 in the store"):
        filled(path)
    assert open_store(path).ledger.done_chunks().tolist() == [0, 1, 2]
