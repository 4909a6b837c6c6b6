"""The photos of the exemplars: which ones are most alike, and what happens without them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from stages.errors import InputError
from stages.models.localiser.exemplar_photos import NAME, SHARED, ExemplarPhotos
from stages.models.localiser.exemplars import Exemplars
from stages.models.localiser.localiser import Localiser
from tests.stages.models.localiser.test_localiser import make
from tests.support.training_city import CONFIG, build_city


@pytest.fixture
def exemplars(tmp_path):
    """Three photos of place 0, none of place 1, two of place 2."""
    features = np.random.default_rng(0).normal(size=(5, 24)).astype(np.float32)
    places = np.array([0, 0, 0, 2, 2])
    photos = ExemplarPhotos(
        places, pa.array([f"{n}.jpg" for n in range(5)]), np.arange(10.0).reshape(5, 2), tmp_path
    )
    return features, replace(Exemplars.of(torch.from_numpy(features), places, 3), photos=photos)


def test_each_photo_is_most_like_itself(exemplars):
    features, kept = exemplars
    for number in range(5):
        (photo, likeness), *others = kept.most_alike(features[[number]], np.array([0, 1, 2]), 3)
        assert photo == number
        assert likeness == pytest.approx(1, abs=1e-2)
        assert len(others) == 2
        assert likeness > others[0][1] >= others[1][1]
    assert {photo for photo, _ in kept.most_alike(features[[0]], np.array([2]), 9)} == {3, 4}
    assert kept.most_alike(features[[0]], np.array([1]), 3) == []
    assert replace(kept, photos=None).most_alike(features[[0]], np.array([0]), 3) == []


def test_a_localiser_keeps_its_photos_and_works_without_them(exemplars, tmp_path):
    _, kept = exemplars
    localiser = make()
    localiser.exemplars = kept
    folder = tmp_path / "localiser"
    localiser.save(folder)
    photos = Localiser.load(folder).exemplars.photos
    assert photos.keys.to_pylist() == kept.photos.keys.to_pylist()
    assert photos.path_of("3.jpg") == tmp_path / "3.jpg"
    np.testing.assert_array_equal(photos.positions, kept.photos.positions)
    (folder / NAME).write_bytes((folder / NAME).read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="delete it"):
        Localiser.load(folder)
    (folder / NAME).unlink()
    alone = Localiser.load(folder)
    assert alone.exemplars.photos is None
    alone.save(folder)
    assert Localiser.load(folder).exemplars.photos is None


def test_a_shared_localiser_names_no_file_outside_its_folder(exemplars, tmp_path):
    _, kept = exemplars
    localiser, folder = make(), tmp_path / "localiser"
    localiser.exemplars = kept
    localiser.save(folder)
    (folder / SHARED).touch()
    photos = Localiser.load(folder).exemplars.photos
    assert photos.path_of("3.jpg") == folder / "photos/3.jpg"
    for key in ("../secret.jpg", "/home/me/secret.jpg", "a/../../secret.jpg"):
        assert photos.path_of(key) is None


def test_training_stores_keys_and_positions(tmp_path):
    build_city(tmp_path, side=3, images=60).train(replace(CONFIG, max_steps=4, augment_views=False))
    trained = Localiser.load(tmp_path / "localiser")
    photos, places, exemplars = trained.exemplars.photos, trained.places, trained.exemplars
    assert (np.diff(photos.place_id) >= 0).all()
    np.testing.assert_array_equal(places.at(photos.positions), photos.place_id)
    known = exemplars.lengths[:, :, 1] > 0
    assert len(photos.keys) <= int(known.sum())
