"""Crops of queries: which part of a photo each store shows, and that square photos are computed once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cache.reader import FeatureReader
from stages.eval.localisers.database import open_split
from stages.extract.crops import Crop
from stages.extract.plan import RowSource, describe
from stages.extract.stage import ExtractInputs
from stages.extract.stage import run as extract
from stages.images.gpu_jpeg import resized
from stages.images.preprocess import MORE_CROPS, more_crops
from tests.support.tiny_photos import CONFIG, draw, listed, run

KEYS = ["wide.png", "high.png", "square.png", "wide2.jpg"]


@pytest.fixture
def photos(tmp_path):
    """A wide photo whose ends are black and white, the same turned, a square one, and another wide one."""
    wide = np.full((40, 120, 3), 128, np.uint8)
    wide[:, :40], wide[:, 80:] = 0, 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide).rotate(-90, expand=True).save(tmp_path / "high.png")
    Image.fromarray(wide[:, 20:60]).save(tmp_path / "square.png")
    draw(tmp_path / "wide2.jpg", 7)
    manifest = listed(tmp_path / "queries.parquet", tmp_path, KEYS)
    run(manifest, tmp_path / "queries.zarr")
    return manifest


def crop_store(folder, manifest, position, config=CONFIG):
    source = RowSource(manifest, crop=Crop(position, folder / "queries.zarr"))
    store = folder / f"crop-{position}.zarr"
    result = extract(ExtractInputs(config, source, store, range(config.shards), "cpu"))
    return FeatureReader.open(store), result


@pytest.mark.parametrize(("position", "grey"), [(0.0, 0), (0.5, 128), (1.0, 255)])
def test_crops_lie_at_the_centre_and_the_ends(position, grey):
    preprocess = replace(describe(CONFIG).preprocess, crop_at=position)
    wide = np.full((40, 120, 3), 128, np.uint8)
    wide[:, :40], wide[:, 80:] = 0, 255
    for image in (Image.fromarray(wide), Image.fromarray(wide).rotate(-90, expand=True)):
        assert np.median(preprocess(image)) == grey
    square = Image.fromarray(wide[:, 20:60])
    np.testing.assert_array_equal(preprocess(square), replace(preprocess, crop_at=0.5)(square))


@pytest.mark.parametrize("position", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("size", [(90, 50), (50, 90), (64, 64)])
def test_a_gpu_crops_where_pillow_does(position, size):
    preprocess = replace(describe(CONFIG).preprocess, crop_at=position)
    pixels = np.random.default_rng(0).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    difference = resized(tensor, preprocess)[0].numpy().astype(int) - preprocess(image).astype(int)
    assert np.abs(difference).max() <= 2


def test_each_crop_has_a_store_whose_recipe_says_which(photos, tmp_path):
    centre = FeatureReader.open(tmp_path / "queries.zarr")
    left, _ = crop_store(tmp_path, photos, 0.0)
    assert left.recipe.differences(centre.recipe) == ["preprocessing.crop_at: 0.0 here, absent in the store"]
    features, other = (reader.read(0, 4).astype(float) for reader in (left, centre))
    assert np.abs(features - other).max(axis=1)[[0, 1, 3]].min() > 0.01
    right, _ = crop_store(tmp_path, photos, 1.0)
    assert np.abs(right.read(0, 4).astype(float) - features).max(axis=1)[0] > 0.01


def test_square_photos_are_copied_from_the_centre_crops(photos, tmp_path):
    left, result = crop_store(tmp_path, photos, 0.0)
    assert (result.computed, result.reused) == (3, 1)
    centre = FeatureReader.open(tmp_path / "queries.zarr")
    np.testing.assert_array_equal(left.read(2, 3), centre.read(2, 3))
    again = crop_store(tmp_path, photos, 0.0)[1]
    assert (again.computed, again.reused) == (0, 0)


def test_centre_crops_of_other_settings_are_not_copied(photos, tmp_path):
    _, result = crop_store(tmp_path, photos, 0.0, replace(CONFIG, outputs=("gem",)))
    assert (result.computed, result.reused) == (4, 0)


def test_whole_images_and_imported_features_have_no_crops():
    preprocessing = describe(CONFIG).preprocess.as_dict()
    assert [more_crops(count, preprocessing) for count in MORE_CROPS] == list(MORE_CROPS.values())
    assert more_crops(3, {**preprocessing, "crop_mode": "squash"}) == ()
    assert more_crops(3, {}) == ()


def test_a_crop_is_not_taken_for_the_centre(photos, tmp_path):
    class Trained:
        recipe = FeatureReader.open(tmp_path / "queries.zarr").recipe

    left, _ = crop_store(tmp_path, photos, 0.0)
    path = tmp_path / "queries.parquet"
    assert open_split(left.store.path, path, Trained, crop_at=0.0)[0].rows == 4
    for crop_at in (None, 1.0):
        with pytest.raises(Exception, match="crop_at"):
            open_split(left.store.path, path, Trained, crop_at=crop_at)
