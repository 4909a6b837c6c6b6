from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from stages.toycity.camera import Camera, cast
from stages.toycity.facade import PX_PER_M, draw_facade
from stages.toycity.patterns import PATTERNS, pattern_mask
from stages.toycity.render import Renderer
from stages.toycity.streets import lay_out
from stages.toycity.style import building_style
from stages.toycity.visits import Shot

SEED = 2


@pytest.fixture(scope="module")
def city():
    return lay_out(300, SEED)


@pytest.fixture(scope="module")
def renderer(city):
    return Renderer(city, 128)


def standing(city, number=0, turn=0.0, **changes):
    """A shot from the middle of a street, turned from the direction along it."""
    segment = city.segments[number]
    x, y = segment.point((segment.start_m + segment.stop_m) / 2, 1.0)
    along = 0.0 if segment.axis else 90.0
    shot = Shot("database/a.jpg", segment.name, x, y, along + turn, 75.0, 2.4, 0.0, 7, number, False)
    return replace(shot, **changes)


def pixels(renderer, shot):
    return np.asarray(Image.open(io.BytesIO(renderer.photo(shot)))).astype(float)


@pytest.mark.parametrize("day", range(4))
def test_down_a_street_there_is_sky_over_road(city, renderer, day):
    picture = pixels(renderer, standing(city, day, day=day))
    sky, road = picture[:20, 54:74], picture[-16:, 54:74]
    assert sky.mean() > road.mean() + 20
    assert np.ptp(road.mean(axis=(0, 1))) < 40


def test_walls_stand_upright_and_have_windows(city, renderer):
    picture = pixels(renderer, standing(city, turn=90.0))
    wall = picture[20:80].mean(axis=2)
    assert np.abs(np.diff(wall, axis=1)).mean() > 4
    assert np.abs(np.diff(wall, axis=0)).mean() > 4


def test_a_photo_is_a_function_of_the_shot_alone(city, renderer):
    shot = standing(city)
    first = renderer.photo(shot)
    renderer.photo(standing(city, 1, query=True, day=99))
    assert renderer.photo(shot) == first
    assert Renderer(city, 128).photo(shot) == first


def test_two_corners_differ_more_than_two_days(city, renderer):
    def structure(shot):
        grey = pixels(renderer, shot).mean(axis=2)[:80]
        return (grey - grey.mean()) / grey.std()

    here, there = standing(city, 0, 90.0), standing(city, 5, 90.0)
    same_place = np.corrcoef(structure(here).ravel(), structure(replace(here, day=8)).ravel())[0, 1]
    other_place = np.corrcoef(structure(here).ravel(), structure(there).ravel())[0, 1]
    assert same_place > other_place + 0.2


def test_a_ray_down_the_middle_meets_the_wall_at_its_distance(city):
    segment = city.segments[0]
    middle = (segment.start_m + segment.stop_m) / 2
    camera = Camera(middle, segment.across_m, 1.7, 0.0, 60.0, 101)
    front, behind = cast(camera, city.blocks)
    assert front.depth[50] == pytest.approx(segment.width_m / 2, abs=0.01)
    assert front.face[50] == 0
    block = city.blocks[front.block[50]]
    assert front.along_m[50] == pytest.approx(middle - block[0], abs=0.01)
    assert behind.depth[50] > front.depth[50] + 30


def test_a_point_projects_onto_the_column_that_sees_it(city):
    camera = Camera(10.0, 20.0, 1.7, 30.0, 70.0, 200)
    dx, dy = camera.rays()
    point = np.array([[10.0 + 9.0 * dx[137], 20.0 + 9.0 * dy[137], 1.7]])
    column, row, depth = camera.project(point)[0]
    assert (column, row, depth) == pytest.approx((137.5, camera.horizon_px, 9.0), abs=1e-3)


def test_a_corner_building_looks_alike_from_both_streets(city):
    lots = len(city.lots(3, 0)) - 1
    last, part = city.building(3, 0, lots - 1, lots)
    first, _ = city.building(3, 1, 0, len(city.lots(3, 1)) - 1)
    assert last == first
    assert part == 1


def test_facades_are_as_large_as_their_lots():
    looks = set()
    for building in range(60):
        style = building_style(SEED, 1, building)
        picture = draw_facade(style, 11.0, building % 2)
        assert picture.size == (11 * PX_PER_M, round(style.height_m * PX_PER_M))
        assert np.asarray(picture)[-1, :, 3].min() == 255
        looks.add(picture.tobytes())
    assert len(looks) == 60


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_covers_some_of_the_wall(name):
    covered = pattern_mask(name, 160, 200, 24, 150).mean()
    assert covered == 0 if name == "plain" else 0.03 < covered < 0.9
