"""All positions of a manifest are in one UTM zone."""

import numpy as np
import pytest
import utm

from stages.errors import InputError
from tests.support.index_sources import index, listed, name


def in_zone(latitude, longitude, zone=None):
    east, north, number, band = utm.from_latlon(latitude, longitude, force_zone_number=zone)
    return name(
        east=f"{east:010.2f}", north=f"{north:010.2f}", zone=str(number), band=band, heading=str(longitude)
    )


def test_positions_of_a_neighbour_zone_are_converted(tmp_path):
    result, manifest = index(listed(tmp_path, [in_zone(37.7, -120.01), in_zone(37.7, -119.99)]), tmp_path)
    assert result.zone == "10S"
    west, east = manifest.positions()
    assert np.hypot(*(east - west)) == pytest.approx(1763.5, abs=2)


def test_positions_far_from_the_zone_are_skipped(tmp_path):
    lines = [in_zone(37.7, -122.4), in_zone(37.7, -100.0), in_zone(-37.7, -122.4), in_zone(48.0, -122.4)]
    result, manifest = index(listed(tmp_path, lines), tmp_path)
    assert result.skipped == {"too far from the UTM zone of the others": 2}
    assert manifest.rows == 2


def test_a_city_across_the_equator_has_one_zone(tmp_path):
    lines = [in_zone(0.001, -78.5), in_zone(-0.001, -78.5)]
    _, manifest = index(listed(tmp_path, lines), tmp_path)
    north, south = manifest.positions()
    assert north[1] - south[1] == pytest.approx(221.1, abs=1)


def test_a_given_zone_is_used(tmp_path):
    result, _ = index(listed(tmp_path, [in_zone(37.7, -119.99)]), tmp_path, zone="10S")
    assert result.zone == "10S"
    with pytest.raises(InputError, match="'99X' is not a UTM zone"):
        index(listed(tmp_path, [name()]), tmp_path, zone="99X")
