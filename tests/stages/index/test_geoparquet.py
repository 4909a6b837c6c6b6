"""GeoParquet: geometries as WKB, the metadata that readers require, rows without a position."""

from __future__ import annotations

import json
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.index.geoparquet import GeoParquetWriter
from stages.index.utm_zone import Zone

LATLON = np.array([[37.5, -122.25], [np.nan, np.nan], [-1.5, 100.0]])


def written(path, kind, *parts):
    with GeoParquetWriter(path, kind) as layer:
        for table, latlon in parts:
            layer.write(table, latlon)
    table = pq.read_table(path)
    return table, json.loads(table.schema.metadata[b"geo"])


def test_points_are_longitude_before_latitude(tmp_path):
    table, geo = written(tmp_path / "a.parquet", "Point", (pa.table({"key": ["a", "b", "c"]}), LATLON))
    first, second, third = table["geometry"].to_pylist()
    assert struct.unpack("<BIdd", first) == (1, 1, -122.25, 37.5)
    assert second is None
    assert struct.unpack("<BIdd", third) == (1, 1, 100.0, -1.5)
    assert geo["columns"]["geometry"]["bbox"] == [-122.25, -1.5, 100.0, 37.5]


def test_squares_are_closed_rings(tmp_path):
    corners = np.array([[[0.0, 10], [0, 11], [1, 11], [1, 10]]])
    table, geo = written(tmp_path / "a.parquet", "Polygon", (pa.table({"place": [0]}), corners))
    order, kind, rings, points, *lonlat = struct.unpack("<BIII10d", table["geometry"][0].as_py())
    assert (order, kind, rings, points) == (1, 3, 1, 5)
    assert lonlat == [10, 0, 11, 0, 11, 1, 10, 1, 10, 0]
    assert geo["columns"]["geometry"]["orientation"] == "counterclockwise"


def test_the_metadata_are_those_of_version_1_1(tmp_path):
    table, geo = written(tmp_path / "a.parquet", "Point", (pa.table({"key": ["a", "b", "c"]}), LATLON))
    assert geo["version"] == "1.1.0"
    assert geo["primary_column"] == "geometry"
    assert set(geo["columns"]) == {"geometry"}
    column = geo["columns"]["geometry"]
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["Point"]
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 4326}
    assert column["crs"]["type"] == "GeographicCRS"
    assert table.schema.field("geometry").type == pa.binary()


def test_batches_share_one_box(tmp_path):
    parts = [(pa.table({"key": [key]}), LATLON[row : row + 1]) for row, key in enumerate("abc")]
    table, geo = written(tmp_path / "a.parquet", "Point", *parts)
    assert table["key"].to_pylist() == ["a", "b", "c"]
    assert table["geometry"].null_count == 1
    assert geo["columns"]["geometry"]["bbox"] == [-122.25, -1.5, 100.0, 37.5]


def test_without_positions_there_is_no_box(tmp_path):
    table, geo = written(tmp_path / "a.parquet", "Point", (pa.table({"key": ["b"]}), LATLON[1:2]))
    assert table["geometry"].to_pylist() == [None]
    assert "bbox" not in geo["columns"]["geometry"]


def test_a_source_column_named_geometry_gives_way(tmp_path):
    table, _ = written(tmp_path / "a.parquet", "Point", (pa.table({"geometry": ["POINT"]}), LATLON[:1]))
    assert table.column_names == ["geometry"]
    assert len(table["geometry"][0].as_py()) == 21


@pytest.mark.parametrize("zone", ["10S", "33H"])
def test_degrees_are_the_inverse_of_metres(zone):
    metres = np.array([[[551_000.0, 4_180_000.0], [400_000.0, 5_000_000.0]], [[np.nan, np.nan]] * 2])
    degrees = Zone.of(zone).degrees(metres)
    assert np.isnan(degrees[1]).all()
    np.testing.assert_allclose(Zone.of(zone).metres(degrees[0]), metres[0], atol=1e-3)
