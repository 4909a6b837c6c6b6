"""Pictures that show no city: what is drawn, and when."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cache.storage.paths import storage_path
from stages.extract import elsewhere
from stages.extract.elsewhere import Elsewhere, draw_elsewhere, extract_elsewhere
from stages.extract.plan import recipe_for
from tests.support.tiny_photos import CONFIG, draw, listed


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    monkeypatch.setattr(elsewhere, "PICTURES", 3)
    keys = [f"{number}.jpg" for number in range(6)]
    for number, key in enumerate(keys):
        draw(tmp_path / "photos" / key, number)
    return listed(tmp_path / "database.parquet", tmp_path / "photos", keys)


def test_the_same_pictures_are_drawn_every_time(manifest):
    pictures = list(draw_elsewhere(manifest))
    kinds = [kind for kind, _ in pictures]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "noise": 3,
        "plain": 3,
        "shuffled": 3,
        "toy city": 3,
    }
    for (_, first), (_, again) in zip(pictures[:9], draw_elsewhere(manifest), strict=False):
        assert (first.shape, first.dtype) == ((256, 256, 3), np.uint8)
        np.testing.assert_array_equal(first, again)


def test_a_shuffled_photo_keeps_its_pixels(manifest):
    with Image.open(manifest.image_path("0.jpg")) as photo:
        pixels = np.array(photo.convert("RGB").resize((256, 256)))
    shuffled = next(picture for kind, picture in draw_elsewhere(manifest) if kind == "shuffled")
    assert not np.array_equal(shuffled, pixels)
    np.testing.assert_array_equal(np.sort(shuffled.reshape(-1, 3), 0), np.sort(pixels.reshape(-1, 3), 0))


def test_features_are_written_once_and_belong_to_a_recipe(manifest, tmp_path, monkeypatch):
    path = storage_path(tmp_path / "elsewhere.npz")
    extract_elsewhere(CONFIG, manifest, path, "cpu")
    assert not path.exists()  # six photos are too few
    monkeypatch.setattr(elsewhere, "LEAST_PHOTOS", 6)
    extract_elsewhere(CONFIG, manifest, path, "cpu")
    recipe = recipe_for(CONFIG, None, 0)
    found = Elsewhere.load(path, recipe)
    assert np.unique(found.kinds, return_counts=True)[1].tolist() == [3, 3, 3, 3]
    assert {name: values.shape for name, values in found.features.items()} == {
        "avg": (12, 1280),
        "gem": (12, 1280),
    }
    assert all(np.isfinite(values).all() for values in found.features.values())
    assert Elsewhere.load(path, replace(recipe, image_size=64)) is None
    path.unlink()
    extract_elsewhere(CONFIG, manifest, path, "cpu,cpu")  # several devices extract the database
    assert len(Elsewhere.load(path, recipe).kinds) == 12
    written = path.stat().st_mtime_ns
    extract_elsewhere(CONFIG, manifest, path, "cpu")
    assert path.stat().st_mtime_ns == written
    path.write_bytes(b"damaged")
    assert Elsewhere.load(path, recipe) is None
