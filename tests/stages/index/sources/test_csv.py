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
    _, manifest = index(table(tmp_path, "path,utm_east,utm_north\na,-500,7\nb,0,0\n"), tmp_path)
    assert manifest.zone == ""
    assert manifest.positions().tolist() == [[-500, 7], [0, 0]]


@pytest.mark.parametrize("zone", ["10s", "10 S", " 10S ", "010S"])
def test_zones_are_read_in_every_spelling(tmp_path, zone):
    text = f"path,utm_east,utm_north,zone\na,500000,4e6,{zone}\n"
    assert index(table(tmp_path, text), tmp_path)[0].zone == "10S"


@pytest.mark.parametrize("zone", ["10", "S", "10I", "61S", "00S", "32610"])
def test_a_zone_without_number_and_letter_names_the_form(tmp_path, zone):
    text = f"path,utm_east,utm_north,zone\na,500000,4e6,{zone}\n"
    with pytest.raises(InputError, match="expected number and letter, such as 10S"):
        index(table(tmp_path, text), tmp_path)


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


FOUR = [
    ("p0", 37.77, -122.41),
    ("p1", 37.7701, -122.411),
    ("p2", 37.7702, -122.412),
    ("p3", 37.7703, -122.413),
]


def lines(header, form, decimal=".", rows=FOUR):
    made = [
        form.format(key, str(lat).replace(".", decimal), str(lon).replace(".", decimal), lat, -lon)
        for key, lat, lon in rows
    ]
    return "\n".join([header, *made, ""])


@pytest.mark.parametrize(
    "text",
    [
        lines("path,lat,lon", "{},{},{}"),
        lines("path;lat;lon", "{};{};{}"),
        lines("path\tlat\tlon", "{}\t{}\t{}"),
        lines("path|lat|lon", "{}|{}|{}"),
        lines("sep=;\npath;lat;lon", "{};{};{}", ","),
        lines("SEP=,\r\npath,lat,lon", "{},{},{}"),
        lines("\n \npath,lat,lon", "{},{},{}"),
        lines(" path , lat , lon ", "{}, {} , {} "),
        lines("Path,LAT,Lon", "{},{},{}"),
        lines('"path","lat","lon"', '"{}","{}","{}"', ","),
        lines("File Name,Latitude,Longitude", "{},{},{}"),
        lines("SourceFile,GPSLatitude,GPSLongitude", '{0},"{3} deg 0\' 0.00"" N","{4} deg W"'),
        lines("image,lat,lng", "{},{},{}"),
        lines("file,lat,long", "{},{},{}"),
        lines("filename,x,y", "{0},{2},{1}"),
        lines("path,Y,X", "{},{},{}"),
        lines("path,lat,lon", "{},{}°,{} °"),
        lines("path,lat,lon", "{0},{3}N,{4}w"),
        lines("path,lat,lon", "{0},N {3},{4}° W"),
        lines("path;lat;lon", "{};{}° N;{}", ","),
        lines("path,lat,lon,,", "{},{},{},,"),
        lines("path,lat,lon", "{},{},{},,"),
        lines("path,lat,lon,,", "{},{},{}"),
        lines(",path,lat,lon", "7,{},{},{}"),
        lines("path,lat,lon", "{},{},{}").replace("\n", "\r"),
        lines("path,lat,lon", "{},{},{}").replace("\n", "\r\n"),
        lines("path,lat,lon", "{},{},{}").encode("utf-16"),
        lines("path,lat,lon", "{},{},{}").encode("utf-8-sig"),
        lines("path,lat,lon", "{},{},{}").encode("utf-32"),
    ],
)
def test_exports_of_spreadsheets_are_read(tmp_path, text):
    result, manifest = index(table(tmp_path, text), tmp_path)
    assert (result.zone, result.skipped) == ("10S", {})
    assert manifest.column("key").tolist() == ["p0", "p1", "p2", "p3"]
    expected = [utm.from_latlon(lat, lon)[:2] for _, lat, lon in FOUR]
    np.testing.assert_allclose(manifest.positions(), expected, atol=1e-3)


def test_metres_in_columns_of_other_names(tmp_path):
    for header in ("file,Easting,Northing,UTM Zone", "path,UTM-East,UTM_North,zone", "path,x,y,zone"):
        text = f"{header}\na,543256.96,4178906.7,10S\n"
        assert index(table(tmp_path, text), tmp_path)[1].positions().tolist() == [[543256.96, 4178906.7]]
    text = 'path;utm_east;utm_north;zone\na;543256,96;4178906,7;10S\nb;"543,256.96";4,178,906;10S\n'
    _, manifest = index(table(tmp_path, text), tmp_path)
    assert manifest.positions().tolist() == [[543256.96, 4178906.7], [543256.96, 4178906.0]]


def test_exact_names_come_before_others(tmp_path):
    text = "path,file,lat,lon,Latitude,x,note\na,b,31.2,34.8,50,7,n\n"
    _, manifest = index(table(tmp_path, text), tmp_path)
    assert manifest.column_names[5:] == ["file", "Latitude", "x", "note"]
    assert manifest.column("key").tolist() == ["a"]


def test_a_sign_beside_its_letter_counts_once(tmp_path):
    text = "path,lat,lon\na,-22.9 S,-43.1W\nb,22.9 S,43.1 w\nc,-22.9 N,43.1W\nd,22.9 E,43.1W\n"
    result, manifest = index(table(tmp_path, text), tmp_path)
    np.testing.assert_array_equal(*manifest.positions())
    assert result.skipped == {"position is not a number": 2}


def test_ragged_rows_keep_their_place(tmp_path):
    text = "path,lat,lon,note\na,31.2,34.8,x\nb,31.2,34.8\nc,31.2,34.8,y,,\nd,31.2,34.8,z,q\ne,31.2,34.8,w\n"
    result, manifest = index(table(tmp_path, text), tmp_path)
    assert manifest.column("key").tolist() == ["a", "c", "e"]
    assert manifest.column("note").tolist() == ["x", "y", "w"]
    assert result.examples == {"more or fewer fields than the header": ("b,31.2,34.8", "d,31.2,34.8,z,q")}


def test_blocks_of_any_size_give_the_same_rows(tmp_path, monkeypatch):
    text = lines("path;lat;lon;note", "{};{};{};ü")
    expected = index(table(tmp_path, text), tmp_path)[1].column("key").tolist()
    for encoding in ("utf-8", "utf-16"):
        for size in (1, 7, 64):
            monkeypatch.setattr("stages.index.sources.csv.BLOCK_BYTES", size)
            _, manifest = index(table(tmp_path, text.encode(encoding)), tmp_path)
            assert manifest.column("key").tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,lat,depth\na,1,2\n", "has the columns path, lat, depth, separated by commas: expected path"),
        ("a;b;;\n1;2;;\n", r"columns a, b, \(no name\), \(no name\), separated by semicolons: .* rename"),
        ("file,filename,lat,lon\na,b,1,2\n", "two columns that can be path, 'file' and 'filename': rename"),
        ("path,y,x\na,1,2\nb,100,300\n", "x and y that may be degrees or metres: rename them"),
        ("path,y,x\na,1,2\nb,40,30\n", "x and y that may be degrees or metres: rename them"),
        ("path,lat,lon\na,37,77,-122,41\n", r"most rows have 5 fields \(decimal commas between commas"),
        ("path,utm_east,utm_north\na;543,256\n", "3 columns|no image"),
        (
            'path,utm_east,utm_north\na,"543,256","4,178"\n',
            "1 a comma that may separate decimals or thousands",
        ),
        ("sep=;\n", "has no header"),
        (b"caf\xe9,lat,lon\na,1,2\n", "is not UTF-8 .its header is not.: save it as CSV UTF-8"),
        (b"path,lat,lon\nb\xe9,1,2\n", r"not UTF-8 in the line 'b\\xe9,1,2': save it as CSV UTF-8"),
        (
            "path,lat,lon\na,1,2\n".encode("utf-16-le"),
            r"UTF-16 without its mark.*save it as CSV UTF-8",
        ),
        (b"\xff\xfe\x00\xdcp\x00", "begins as UTF-16, but is not"),
        ("path,lat,lon\na,1,2\n".encode("utf-16") + b"x", "begins as UTF-16, but is not"),
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
