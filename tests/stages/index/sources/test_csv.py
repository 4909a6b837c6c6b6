"""CSV files in degrees and metres, and their unusable rows."""

import numpy as np
import pytest
import utm

from stages.errors import InputError
from tests.support.index_sources import index


def table(tmp_path, text):
    path = tmp_path / "photos.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_csv_in_degrees_keeps_extra_columns(tmp_path):
    text = (
        "\ufeffpath,lat,lon,heading,timestamp,note\r\n"
        '"a, b.jpg",31.26,34.80,90,2025-12-22,"said ""hi"""\r\n'
        "c.jpg, 31.27 ,34.81,,,\r\n"
    )
    result, manifest = index(table(tmp_path, text), tmp_path)
    assert manifest.column("key").tolist() == ["a, b.jpg", "c.jpg"]
    assert manifest.column("note").tolist() == ['said "hi"', ""]
    np.testing.assert_array_equal(manifest.column("heading"), np.array([90, np.nan], np.float32))
    east, north, _, _ = utm.from_latlon(31.26, 34.80)
    assert manifest.positions()[0].tolist() == pytest.approx([east, north], abs=1e-6)
    assert (result.zone, manifest.source) == ("36R", "csv")
    assert manifest.root == tmp_path
    assert result.low[0] < result.high[0]


def test_a_csv_in_metres_with_and_without_zones(tmp_path):
    _, manifest = index(
        table(tmp_path, "path,utm_east,utm_north,zone\na,500000,4e6,10S\nb,500001,4000001,\n"), tmp_path
    )
    assert manifest.zone == "10S"
    assert manifest.positions().tolist() == [[500000, 4e6], [500001, 4000001]]
    _, manifest = index(table(tmp_path, "path,utm_east,utm_north\na,-5,7\n"), tmp_path)
    assert manifest.zone == ""
    _, manifest = index(table(tmp_path, "path,utm_east,utm_north\na,-5,7\n"), tmp_path, zone="36R")
    assert manifest.zone == "36R"


def test_skipped_rows_of_a_csv_are_counted_by_reason(tmp_path):
    rows = [
        "a,31.2,34.8,x",
        "b,95,34.8,x",
        "c,,34.8,x",
        "d,north,34.8,x",
        "e,nan,34.8,x",
        ",31.2,34.8,x",
        "f,31.2,181,x",
    ]
    rows += ["g,31.2,60,x", "h,31.2,34.8", "a,31.2,34.8,x", "i,inf,34.8,x", "j,31.2,34.9,x"]
    result, manifest = index(table(tmp_path, "\n".join(["path,lat,lon,note", *rows])), tmp_path)
    assert manifest.column("key").tolist() == ["a", "j"]
    assert result.skipped == {
        "no path": 1,
        "no position": 1,
        "position is not a number": 3,
        "position out of range": 2,
        "too far from the UTM zone of the others": 1,
        "more or fewer fields than the header": 1,
        "key seen before": 1,
    }
    assert result.rows == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,lat,long\na,1,2\n", "has the columns path, lat, long: expected path and either lat, lon"),
        ("path,lat,lon,lon\na,1,2,3\n", "two columns named lon"),
        ("path,lat,lon,key\na,1,2,3\n", "column named key"),
        ("", "not a readable CSV"),
        ("path,lat,lon\n", "no image with a usable position"),
        (b"path,lat,lon\ncaf\xe9,1,2\n", "not a readable CSV"),
    ],
)
def test_an_unusable_csv_is_rejected(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        index(table(tmp_path, text), tmp_path)
