"""What photos show, measured on their pixels."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from stages.toycity.draw import Renderer
from stages.toycity.streets import Shot, plan_city


@pytest.fixture(scope="module")
def city():
    return plan_city(300, 2)


@pytest.fixture(scope="module")
def renderer(city):
    return Renderer(city, 128)


def mid_street(city, number=0, turn=0.0, **changes):
    """A shot from the middle of a street, turned from the direction along it."""
    segment = city.segments[number]
    x, y = segment.point((segment.start_m + segment.stop_m) / 2, 1.0)
    along = 0.0 if segment.axis else 90.0
    shot = Shot(segment.name, x, y, along + turn, "", "", 7, number, fov_deg=75.0, eye_m=2.4)
    return replace(shot, **changes)


def pixels(renderer, shot):
    return np.asarray(Image.open(io.BytesIO(renderer.photo(shot)))).astype(float)


@pytest.mark.parametrize("day", range(4))
def test_a_view_along_a_street_has_sky_over_road(city, renderer, day):
    picture = pixels(renderer, mid_street(city, day, day=day))
    sky, road = picture[:20, 54:74], picture[-16:, 54:74]
    assert sky.mean() > road.mean() + 20
    assert np.ptp(road.mean(axis=(0, 1))) < 40


def test_walls_have_windows(city, renderer):
    picture = pixels(renderer, mid_street(city, turn=90.0))
    wall = picture[20:80].mean(axis=2)
    assert np.abs(np.diff(wall, axis=1)).mean() > 4
    assert np.abs(np.diff(wall, axis=0)).mean() > 4


def test_a_photo_is_a_function_of_the_shot_alone(city, renderer):
    shot = mid_street(city)
    first = renderer.photo(shot)
    renderer.photo(mid_street(city, 1, query=True, day=99))
    assert renderer.photo(shot) == first
    assert Renderer(city, 128).photo(shot) == first


def test_two_places_differ_more_than_two_days(city, renderer):
    def structure(shot):
        grey = pixels(renderer, shot).mean(axis=2)[:80]
        return (grey - grey.mean()) / grey.std()

    here, elsewhere = mid_street(city, 0, 90.0), mid_street(city, 5, 90.0)
    same_place = np.corrcoef(structure(here).ravel(), structure(replace(here, day=8)).ravel())[0, 1]
    other_place = np.corrcoef(structure(here).ravel(), structure(elsewhere).ravel())[0, 1]
    assert same_place > other_place + 0.2
