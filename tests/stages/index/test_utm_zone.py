"""All positions of a manifest are in one UTM zone."""

import numpy as np
import pytest
import utm
from hypothesis import example, given
from hypothesis import strategies as st

from stages.errors import InputError
from stages.index.utm_zone import southern_bands, zones_of
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


@given(st.floats(-80, 84), st.floats(-180, 180))
@example(84.0, 180.0)
@example(60.0, 3.0)
@example(72.0, 9.0)
@example(75.0, 42.0)
@example(-80.0, -180.0)
def test_zones_of_degrees_agree_with_utm(latitude, longitude):
    numbers, bands = zones_of(np.array([[latitude, longitude]]))
    assert numbers[0] == utm.latlon_to_zone_number(latitude, longitude)
    assert chr(bands[0]) == utm.latitude_to_zone_letter(latitude)


@pytest.mark.parametrize("latitude", [-72.5, -71.5, -54.8, -33.87, -12.05, -0.1])
def test_bands_of_southern_northings_agree_with_utm(latitude):
    _, north, _, band = utm.from_latlon(latitude, 3.0)
    assert southern_bands(np.array([north])).tobytes().decode() == band


@pytest.mark.parametrize(
    ("north", "zone"), [(6_250_000, "10H"), (8_667_000, "10L"), (1_360_000, "10C"), (4_180_000, "10S")]
)
def test_letter_s_beside_a_southern_northing_means_south(tmp_path, north, zone):
    result, manifest = index(listed(tmp_path, [f"@500000@{north}@10@S@@x.jpg"]), tmp_path)
    assert result.zone == zone
    assert manifest.positions().tolist() == [[500_000, north]]


def test_letter_s_of_a_city_that_crosses_the_40th_parallel(tmp_path):
    lines = [f"@500000@{north}@50@S@@x.jpg" for north in (4_427_000, 4_430_000, 4_460_000)]
    result, manifest = index(listed(tmp_path, lines), tmp_path)
    assert (result.zone, manifest.rows) == ("50S", 3)
