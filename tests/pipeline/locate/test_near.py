"""Photos near a known position, and several photos of one spot."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.locate.localiser import PhotoLocaliser
from pipeline.locate.near import EDGE, Near
from stages.errors import InputError
from stages.images.read import UnreadableImage
from stages.index.utm_zone import Zone
from tests.pipeline.locate.test_locate import call, recipe, save_localiser, scene


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_localiser(tmp_path_factory.mktemp("model") / "localiser", recipe(), calibrated=True)


@pytest.fixture(scope="module")
def localiser(model):
    return PhotoLocaliser.load(model)


@pytest.fixture
def photos(tmp_path):
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        scene(seed=seed).save(path)
    return paths


def metres_from(near, answer):
    centre = Zone.of("10S").metres(np.array([[near.latitude, near.longitude]]))[0]
    return [float(np.hypot(*(centre - (place.utm_east, place.utm_north)))) for place in answer.places]


def test_answers_lie_near_the_position(localiser, photos):
    alone = localiser.locate(photos[0], top=3)
    last = alone.places[-1]
    near = Near(last.latitude, last.longitude, 20.0)
    answer = localiser.locate(photos[0], top=9, near=near)
    assert max(metres_from(near, answer)) <= 20 + max(EDGE * 20, localiser.trained.places.cell_m)
    assert metres_from(near, answer)[0] < 40 < max(metres_from(near, localiser.locate(photos[0], top=9)))


def test_a_circle_around_everything_changes_nothing(localiser, photos):
    place = localiser.locate(photos[0]).places[0]
    near = Near(place.latitude, place.longitude, 10_000.0)
    assert localiser.locate(photos[0], near=near) == localiser.locate(photos[0])


def test_the_edge_of_the_circle_is_soft(localiser):
    places = localiser.trained.places
    east, north = places.centres.mean(axis=0)
    away = np.linalg.norm(places.centres - (east, north), axis=1)
    import utm

    latitude, longitude = utm.to_latlon(east, north, 10, northern=True)
    radius_m = float(np.median(away))
    weight = np.exp(Near(latitude, longitude, radius_m).log_prior(places, "10S"))
    edge_m = max(EDGE * radius_m, places.cell_m)
    np.testing.assert_allclose(weight, np.clip(1 - (away - radius_m) / edge_m, 0, 1), atol=1e-3)
    assert {0.0, 1.0} < set(weight.round(9))


def test_nothing_near_is_an_error_with_the_distance(localiser, photos):
    place = localiser.locate(photos[0]).places[0]
    near = Near(place.latitude + 0.1, place.longitude, 500.0)
    with pytest.raises(InputError, match=r"is within 500 m, the nearest is 11,\d+ m"):
        localiser.locate(photos[0], near=near)
    with pytest.raises(InputError, match="no place of this localiser"):
        localiser.locate(photos[0], near=Near(48.0, 2.0, 500.0))  # another UTM zone


@pytest.mark.parametrize("text", ["37,-122", "a,b,c", "91,0,10", "37,-122,0", "37,-122,nan", "37,200,10"])
def test_text_that_is_no_circle_is_rejected(text):
    with pytest.raises(InputError, match=r"near .*expected"):
        Near.parse(text)
    assert Near.parse(" 37.5, -122.5,300") == Near(37.5, -122.5, 300.0)


def test_without_a_zone_degrees_say_nothing(tmp_path, photos):
    save_localiser(tmp_path / "model", recipe(), calibrated=True, zone="")
    with pytest.raises(InputError, match="does not know its UTM zone"):
        PhotoLocaliser.load(tmp_path / "model").locate(photos[0], near=Near(37.5, -122.5, 300.0))


def test_the_same_photo_twice_is_at_the_same_place(localiser, photos):
    (twice,) = localiser.locate_together([photos[0], photos[0]], top=3)
    once = localiser.locate(photos[0], top=3)
    assert twice.confidence >= once.confidence - 1e-3
    first, expected = twice.places[0], once.places[0]
    np.testing.assert_allclose(
        [first.utm_east, first.utm_north], [expected.utm_east, expected.utm_north], atol=5.0
    )


def test_evidence_of_n_photos_is_root_n_times_their_mean(localiser, photos):
    from stages.models.localiser.evidence import calibration_for, score_classes
    from stages.models.localiser.predict import FusionConfig

    trained = localiser.trained
    fusion = FusionConfig(**trained.meta["fusion"]["settings"])
    calibration = calibration_for(trained, fusion)
    views = np.stack(localiser.features.of([localiser.features.read(photo) for photo in photos]), axis=1)

    def evidence(features, photos=1):
        settings = {"top": len(trained.places), "calibration": calibration, "photos": photos}
        scored = score_classes(trained, features, **settings)
        by_class = np.empty(scored.evidence.shape)
        np.put_along_axis(by_class, scored.class_id, scored.evidence, axis=1)
        return by_class

    single, count = evidence(views[0]), len(photos)
    np.testing.assert_allclose(evidence(views)[0], single.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(evidence(views, count)[0], count**0.5 * single.mean(axis=0), atol=1e-3)


def test_unreadable_photos_do_not_stop_the_others(localiser, photos, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    error, answer = localiser.locate_together([bad, *photos])
    assert isinstance(error, UnreadableImage)
    assert answer.together == tuple(photos)
    assert [type(outcome) for outcome in localiser.locate_together([bad])] == [UnreadableImage]


def test_the_command_combines_near_together_and_walk(model, localiser, photos, capsys):
    place = localiser.locate(photos[0]).places[0]
    near = f"{place.latitude},{place.longitude},30"
    code, out, _ = call(
        capsys, "locate", "--model", model, "--together", "--near", near, "--format", "json", *photos
    )
    (answer,) = json.loads(out)
    assert code == 0
    assert answer["photos"] == [str(photo) for photo in photos]
    (expected,) = localiser.locate_together(photos, near=Near.parse(near))
    assert answer == expected.as_dict()
    code, out, _ = call(
        capsys, "locate", "--model", model, "--walk", "--near", near, "--format", "json", *photos
    )
    assert code == 0
    for located in localiser.locate_walk(photos, speed_m_s=1.4, near=Near.parse(near)):
        assert max(metres_from(Near.parse(near), located)) <= 30 + localiser.trained.places.cell_m
    assert len(json.loads(out)) == 3


def test_one_spot_and_a_walk_exclude_each_other(model, photos, capsys):
    code, _, err = call(capsys, "locate", "--model", model, "--walk", "--together", *photos)
    assert code != 0
    assert "--together is for photos of one spot" in " ".join(err.split())
