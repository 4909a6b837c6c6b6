"""Streets and tiles below the map: read, clipped, simplified, limited; faults are named."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import utm

from stages.errors import InputError
from stages.eval.report import base_map
from stages.eval.report.base_map import BaseMap, packed_streets, tile_server
from stages.index.utm_zone import Zone

ZONE = Zone.of("10S")
CORNER = np.array([551_000.0, 4_180_000.0])
BOX = (551_000.0, 4_180_000.0, 552_000.0, 4_181_000.0)
CITY = (541_000.0, 4_160_000.0, 571_000.0, 4_190_000.0)


def write_streets(path, lines, kind="LineString"):
    """Write lines in metres from the corner as GeoJSON."""
    features = []
    for line in lines:
        points = [utm.to_latlon(*(CORNER + point), 10, northern=True)[::-1] for point in line]
        coordinates = [points] if kind in ("MultiLineString", "Polygon") else points
        features.append({"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}})
    features.append({"type": "Feature", "geometry": None})
    features.append({"type": "Feature", "geometry": {"type": "Point", "coordinates": [0, 0]}})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def unpack(text):
    numbers, lines = np.frombuffer(base64.b64decode(text), "<i4"), []
    while len(numbers):
        count, rest = numbers[0], numbers[1:]
        lines.append(rest[: 2 * count].reshape(-1, 2) / 10 - CORNER)
        numbers = rest[2 * count :]
    return lines


@pytest.mark.parametrize("kind", ["LineString", "MultiLineString", "Polygon"])
def test_streets_are_clipped_and_simplified(tmp_path, kind):
    straight = [(100, 100), (200, 100.2), (300, 100), (300, 400)]
    leaving = [(500, 500), (1500, 500), (2500, 500), (2600, 600)]
    far = [(9000, 9000), (9100, 9000)]
    lines = unpack(
        packed_streets(write_streets(tmp_path / "a.geojson", [straight, leaving, far], kind), ZONE, BOX)
    )
    assert len(lines) == 2
    np.testing.assert_allclose(lines[0], [(100, 100), (300, 100), (300, 400)], atol=0.2)
    np.testing.assert_allclose(lines[1], [(500, 500), (1500, 500)], atol=0.2)


def test_streets_are_simplified_until_they_fit(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    lines = [np.cumsum(random.normal(size=(400, 2)) * 8, axis=0) + 500 for _ in range(10)]
    path = write_streets(tmp_path / "a.geojson", lines)
    before = len(packed_streets(path, ZONE, BOX))
    monkeypatch.setattr(base_map, "STREETS_BYTES", before // 4)
    after = packed_streets(path, ZONE, BOX)
    assert 0 < len(after) <= before // 4
    assert len(unpack(after)) == 10


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"type": "Feature"}', '{"type": "LineString", "coordinates": [[1], ["a", 2]]}']
)
def test_files_that_are_no_geojson_are_rejected(tmp_path, text):
    (tmp_path / "a.geojson").write_text(text)
    with pytest.raises(InputError, match=r"a\.geojson is no GeoJSON"):
        packed_streets(tmp_path / "a.geojson", ZONE, BOX)


def test_streets_need_a_zone(tmp_path):
    path = write_streets(tmp_path / "a.geojson", [])
    with pytest.raises(InputError, match="UTM zone"):
        BaseMap(streets=path).data("", CORNER[None], None)
    assert BaseMap(streets=path).data("10S", CORNER[None], None)["streets"] == ""


@pytest.mark.parametrize(
    "url", ["tiles/{z}/{x}/{y}.png", "https://tile.example/{z}/{x}.png", "file:///{z}/{x}/{y}"]
)
def test_addresses_without_a_template_are_rejected(url):
    with pytest.raises(InputError, match="expected an address with"):
        tile_server(url, ZONE, BOX)


def test_tiles_lie_where_web_mercator_puts_them():
    server = tile_server("https://tile.example/{z}/{x}/{y}.png", ZONE, CITY)
    assert server["host"] == "https://tile.example"
    assert "OpenStreetMap contributors" in server["credit"]

    def evaluate(point, fit):
        x, y = (np.array(point) - np.array(fit["from"], float)) / float(fit["unit"])
        return np.array(
            [sum(x**i * y**j * float(term[axis]) for i, j, *term in fit["terms"]) for axis in (0, 1)]
        )

    for east, north in ((551_000, 4_180_000), (551_400, 4_180_900)):
        latitude, longitude = utm.to_latlon(east, north, 10, northern=True)
        column = (longitude + 180) / 360
        row = (1 - np.arcsinh(np.tan(np.radians(latitude))) / np.pi) / 2
        world = evaluate((east, north), server["to_world"])
        assert np.abs(world - (column, row)).max() * 4e7 < 0.1  # metres at the equator
        assert np.abs(evaluate(world, server["to_ground"]) - (east, north)).max() < 0.1


def test_of_many_database_photos_a_sample_is_drawn(monkeypatch):
    monkeypatch.setattr(base_map, "_DOTS", 10)
    dots = BaseMap().data("10S", CORNER[None], np.tile(CORNER, (95, 1)))["dots"]
    assert len(np.frombuffer(base64.b64decode(dots), "<i4")) == 2 * 10
