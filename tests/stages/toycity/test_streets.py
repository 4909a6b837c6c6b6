from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from stages.toycity.config import CityConfig
from stages.toycity.draw import shot_name
from stages.toycity.streets import ORIGIN, plan_city, plan_shots


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_head_cells_hold_tens_of_times_the_images_of_tail_cells(seed):
    config = CityConfig(1500, 200, seed, 256, 0.08)
    shots = plan_shots(plan_city(1500, seed), config)
    database = [shot for shot in shots if not shot.query]
    assert len(database) == 1500
    assert len({(shot.query, shot_name(shot, "")) for shot in shots}) == 1700
    cells = Counter((int(s.utm[0] // 10), int(s.utm[1] // 10)) for s in database)
    counts = np.array(sorted(cells.values()))
    assert 100 <= len(counts) <= 220
    assert counts[-5:].mean() >= 8 * np.median(counts)
    assert counts.max() >= 20 * counts.min()


@pytest.mark.parametrize("share", [0.0, 0.08, 0.5])
def test_the_configured_share_of_queries_is_outside(share):
    config = CityConfig(600, 50, 4, 256, share)
    shots = plan_shots(plan_city(600, 4), config)
    database = np.array([shot.utm for shot in shots if not shot.query])
    queries = np.array([shot.utm for shot in shots if shot.query])
    nearest = np.hypot(*(queries[:, None] - database).transpose(2, 0, 1)).min(axis=1)
    assert (nearest > 25).sum() == round(50 * share)
    assert np.all(nearest[nearest <= 25] < 10)


def test_all_photos_are_taken_on_a_street():
    city = plan_city(600, 5)
    west, south, east, north = (city.blocks + np.array(ORIGIN * 2)).T
    for shot in plan_shots(city, CityConfig(600, 50, 5, 256, 0.1)):
        x, y = shot.utm
        assert not np.any((west < x) & (x < east) & (south < y) & (y < north))


def test_a_corner_building_has_one_style_on_both_streets():
    city = plan_city(300, 2)
    lots = len(city.lots(3, 0)) - 1
    last, side = city.building(0, lots - 1, lots)
    first, _ = city.building(1, 0, len(city.lots(3, 1)) - 1)
    assert last == first
    assert side == 1
