"""The index: every kind of source, every fault, and the fast reading of names against the slow one."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import utm
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, TiffImagePlugin

from stages.errors import InputError
from stages.index.config import IndexConfig
from stages.index.manifest import DuplicateKeyError, Manifest
from stages.index.skipped import SkipReason
from stages.index.sources.folder import keys_below
from stages.index.sources.sfxl_name import parse_name
from stages.index.sources.sfxl_names import parse_names, parse_uniform_lines
from stages.index.sources.text_list import BLOCK_BYTES, read_list
from stages.index.stage import IndexInputs, run

SKIP, STOP = IndexConfig(on_error="skip"), IndexConfig(on_error="stop")
CAMPUS = Path(os.environ.get("PLACECACHE_CAMPUS", Path(__file__).parents[4] / "shared/data/campus"))


def name(
    east="0543256.96",
    north="4178906.70",
    zone="10",
    band="S",
    heading="090",
    stamp="201408",
    pano="z8tOq_kN-8h",
):
    return f"@{east}@{north}@{zone}@{band}@037.75689@-122.50896@{pano}@@{heading}@@@@{stamp}@@.jpg"


def index(source, tmp_path, config=SKIP, zone=None, progress=None):
    output = tmp_path / "out" / "database.parquet"
    result = run(IndexInputs(config, source, output, "database", zone), progress=progress)
    return result, Manifest.open(output)


def listed(tmp_path, lines, ending="\n", last="\n"):
    path = tmp_path / "list.txt"
    path.write_bytes((ending.join(lines) + last).encode())
    return path


# Names


def assert_read_alike(names):
    """Compare the fast reading of all names with the slow one of each."""
    assert_same(parse_names(pa.array(names, pa.string())), names)


def assert_same(batch, names):
    for row, text in enumerate(names):
        fields = parse_name(text)
        if isinstance(fields, SkipReason):
            assert batch.skip_reasons[row] == fields, text
            continue
        assert batch.skip_reasons[row] == SkipReason.NONE, text
        assert batch.positions[row].tolist() == [fields.east, fields.north]
        assert batch.zone_numbers[row] == fields.zone_number
        assert chr(batch.bands[row]).strip("\0") == fields.band
        np.testing.assert_equal(batch.heading[row], np.float32(fields.heading))
        assert batch.timestamp[row].as_py() == fields.timestamp


digits = st.text("0123456789", min_size=1, max_size=7)
decimals = st.one_of(
    st.floats(0, 1e7).map(lambda value: f"{value:010.2f}"),
    st.builds("{}.{}".format, digits, digits),
    st.sampled_from(
        ["", "nan", "inf", "-3.5", "1e5", "1_0", " 7", "5.", ".5", "+4.25", "0543256@96", "05432/6.96"]
    ),
)
sf_xl_names = st.builds(
    name,
    east=decimals,
    north=decimals,
    zone=st.sampled_from(["10", "10", "11", "", "61", "1x", "٣"]),
    band=st.sampled_from(["S", "S", "T", "s", "", "I", "SS"]),
    heading=st.sampled_from(["090", "7", "", "-12.5", "north"]),
    stamp=st.sampled_from(["201408", "", "2014-08-01T10:00", "août"]),
    pano=st.sampled_from(["z8tOq_kN-8h", "z8t@q_kN-8h", "z8t/q_kN-8h", "é"]),
)
paths = st.builds("{}{}".format, st.sampled_from(["", "train/37.70/", "a@b/", "@/"]), sf_xl_names)


@given(st.lists(st.one_of(paths, st.text(max_size=30)), max_size=30))
@settings(max_examples=300)
def test_the_fast_reading_agrees_with_the_slow_one(names):
    assert_read_alike(names)


def test_faults_hidden_among_regular_names_are_found():
    regular = [f"train/{name(east=f'{i:07d}.25', heading=f'{i % 360:03d}')}" for i in range(20_000)]
    for row, change in {
        3: ("@10@", "@1x@"),
        77: ("z8tOq", "z8@Oq"),
        9_000: (".25@", "x25@"),
        12_345: ("4178906.70", "41789O6.70"),
        19_999: ("train/", "tr@in/"),
    }.items():
        regular[row] = regular[row].replace(*change)
    assert_read_alike(regular)


REGULAR = [f"ab/cd/{name(east=f'{i:07d}.25', heading=f'{i % 360:03d}')}" for i in range(9_000)]


def test_names_alike_are_read_at_once():
    text = np.frombuffer("".join(f"{line}\n" for line in REGULAR).encode(), np.uint8)
    batch = parse_uniform_lines(text)
    assert batch is not None
    assert_same(batch, REGULAR)


@pytest.mark.parametrize(
    "change",
    [
        ("@10@", "@1x@"),
        ("z8tOq", "z8@Oq"),
        ("z8tOq", "z8/Oq"),
        ("z8tOq", "z8\nOq"),
        ("z8tOq", "z8\tOq"),
        ("z8tOq", "zéOq"),
        (".25@", "x25@"),
        ("4178906.70", "41789O6.70"),
        ("ab/cd", "ab@cd"),
        ("ab/cd", "a/bcd"),
        ("ab/cd", "abc/d"),
        ("ab/cd", "abccd"),
        ("090", "-90"),
    ],
    ids=lambda change: repr(change[1]),
)
def test_a_list_of_names_alike_is_read_as_if_one_by_one(tmp_path, change):
    lines = list(REGULAR)
    for row in (0, 90, 8_190, 8_999):
        lines[row] = name(heading="090", east="0543256.25").join(["ab/cd/", ""]).replace(*change)
    lines[100] = lines[100].replace("ab/cd", "abccd").replace("z8tOq", "z/tOq")  # as many slashes in all
    path = listed(tmp_path, lines)
    (batch,) = [batch for batch, _ in read_list(path)]
    assert batch.keys.to_pylist() == path.read_text().split("\n")[:-1]
    assert_same(batch, batch.keys.to_pylist())


def test_many_layouts_in_one_batch():
    rng = np.random.default_rng(0)
    assert_read_alike(
        [
            "x" * int(rng.integers(0, 40))
            + name(east=f"{rng.uniform(0, 1e6):.{rng.integers(0, 6)}f}", heading=str(rng.integers(0, 360)))
            for _ in range(3000)
        ]
    )


# Lists


@pytest.mark.parametrize(
    ("ending", "last"), [("\n", "\n"), ("\n", ""), ("\r\n", "\r\n"), ("\r\n", ""), ("\n\n", "\n\n\n")]
)
@pytest.mark.parametrize("same_length", [True, False])
def test_a_list_keeps_its_order_whatever_its_line_ends(tmp_path, ending, last, same_length):
    lines = [name(east=f"054{i:04d}.00", heading="090" if same_length else str(i)) for i in (5, 3, 90, 4)]
    result, manifest = index(listed(tmp_path, lines, ending, last), tmp_path)
    assert manifest.column("key").tolist() == lines
    assert result.rows == 4
    assert result.skipped == {}
    assert manifest.column("timestamp").tolist() == ["201408"] * 4
    assert manifest.source == "names"


def test_a_list_with_a_byte_order_mark(tmp_path):
    path = listed(tmp_path, [name()])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert index(path, tmp_path)[1].column("key").tolist() == [name()]


@pytest.mark.parametrize("block_bytes", [90, 100, 256, 1000])
def test_lines_that_straddle_blocks(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr("stages.index.sources.text_list.BLOCK_BYTES", block_bytes)
    lines = [name(east=f"054{i:04d}.00", heading=str(i)) for i in range(200)]
    keys = [key for batch, _ in read_list(listed(tmp_path, lines, last="")) for key in batch.keys.to_pylist()]
    assert keys == lines
    assert BLOCK_BYTES > 1 << 20


def test_a_file_without_line_ends_is_no_list(tmp_path, monkeypatch):
    monkeypatch.setattr("stages.index.sources.text_list.BLOCK_BYTES", 64)
    with pytest.raises(InputError, match="no line end in 64 bytes"):
        index(listed(tmp_path, ["x" * 500]), tmp_path)


@pytest.mark.parametrize("last", ["", "\n"])
def test_a_first_line_longer_than_any_path_is_one_fault(tmp_path, last):
    result, manifest = index(listed(tmp_path, ["x" * 70_000, name()], last=last), tmp_path)
    assert manifest.column("key").tolist() == [name()]
    assert sum(result.skipped.values()) == 1


def test_every_fault_is_counted_by_reason_and_named(tmp_path):
    good = [name(heading=str(i)) for i in range(3)]
    bad = [
        "no_position.jpg",
        name(east="nan"),
        name(east=""),
        name(north="99999999999.0"),
        name(zone="61"),
        "@1@2.jpg",
    ]
    result, manifest = index(listed(tmp_path, [*bad, *good]), tmp_path)
    assert manifest.column("key").tolist() == good
    assert result.skipped == {
        "no position": 2,
        "position is not a number": 2,
        "position out of range": 1,
        "not a UTM zone": 1,
    }
    assert result.examples["no position"] == ("no_position.jpg", "@1@2.jpg")
    assert result.rows == 3


def test_a_path_that_is_no_utf8(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"caf\xe9/" + name().encode() + b"\n" + name().encode() + b"\n")
    result, manifest = index(path, tmp_path)
    assert result.skipped == {"path is not UTF-8": 1}
    assert manifest.rows == 1


def test_stop_names_the_first_fault_and_writes_nothing(tmp_path):
    with pytest.raises(InputError, match=r"1 no position \(bad.jpg\); .*index.on_error"):
        index(listed(tmp_path, [name(), "bad.jpg"]), tmp_path, STOP)
    assert list((tmp_path / "out").glob("*")) == []


def test_nothing_usable_says_why(tmp_path):
    with pytest.raises(InputError, match="no image with a usable position; skipped: 2 no position"):
        index(listed(tmp_path, ["a.jpg", "b.jpg"]), tmp_path)


def test_double_keys_are_dropped_but_the_first(tmp_path):
    lines = [
        name(heading="1"),
        "bad",
        name(heading="2"),
        name(heading="1"),
        name(heading="3"),
        name(heading="1"),
    ]
    result, manifest = index(listed(tmp_path, lines), tmp_path)
    assert manifest.column("heading").tolist() == [1, 2, 3]
    assert result.skipped == {"no position": 1, "key seen before": 2}
    assert result.rows == 3
    with pytest.raises(DuplicateKeyError, match="2 images"):
        index(listed(tmp_path, [line for line in lines if line != "bad"]), tmp_path, STOP)


# Zones


def in_zone(latitude, longitude, zone=None):
    east, north, number, band = utm.from_latlon(latitude, longitude, force_zone_number=zone)
    return name(
        east=f"{east:010.2f}", north=f"{north:010.2f}", zone=str(number), band=band, heading=str(longitude)
    )


def test_a_row_of_the_neighbour_zone_is_put_in_the_first_ones(tmp_path):
    result, manifest = index(listed(tmp_path, [in_zone(37.7, -120.01), in_zone(37.7, -119.99)]), tmp_path)
    assert result.zone == "10S"
    west, east = manifest.positions()
    assert np.hypot(*(east - west)) == pytest.approx(1763.5, abs=2)


def test_rows_far_away_or_in_the_other_hemisphere_are_refused(tmp_path):
    lines = [in_zone(37.7, -122.4), in_zone(37.7, -100.0), in_zone(-37.7, -122.4), in_zone(48.0, -122.4)]
    result, manifest = index(listed(tmp_path, lines), tmp_path)
    assert result.skipped == {"too far from the UTM zone of the others": 2}
    assert manifest.rows == 2


def test_a_city_across_the_equator_stays_whole(tmp_path):
    lines = [in_zone(0.001, -78.5), in_zone(-0.001, -78.5)]
    _, manifest = index(listed(tmp_path, lines), tmp_path)
    north, south = manifest.positions()
    assert north[1] - south[1] == pytest.approx(221.1, abs=1)


def test_the_zone_asked_for_wins(tmp_path):
    result, _ = index(listed(tmp_path, [in_zone(37.7, -119.99)]), tmp_path, zone="10S")
    assert result.zone == "10S"
    with pytest.raises(InputError, match="'99X' is not a UTM zone"):
        index(listed(tmp_path, [name()]), tmp_path, zone="99X")


# CSV


def table(tmp_path, text):
    path = tmp_path / "photos.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_table_in_degrees_keeps_further_columns(tmp_path):
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


def test_a_table_in_metres_with_and_without_zones(tmp_path):
    _, manifest = index(
        table(tmp_path, "path,utm_east,utm_north,zone\na,500000,4e6,10S\nb,500001,4000001,\n"), tmp_path
    )
    assert manifest.zone == "10S"
    assert manifest.positions().tolist() == [[500000, 4e6], [500001, 4000001]]
    _, manifest = index(table(tmp_path, "path,utm_east,utm_north\na,-5,7\n"), tmp_path)
    assert manifest.zone == ""
    _, manifest = index(table(tmp_path, "path,utm_east,utm_north\na,-5,7\n"), tmp_path, zone="36R")
    assert manifest.zone == "36R"


def test_every_fault_of_a_table_is_counted(tmp_path):
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
def test_a_table_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        index(table(tmp_path, text), tmp_path)


# Folders


def photo(path, position=None, heading=None, taken=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if position:
        gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
        for tag, value, (plus, minus) in zip((1, 3), position, ("NS", "EW"), strict=True):
            gps[tag] = plus if value >= 0 else minus
            minutes, seconds = divmod(abs(value) * 3600, 60)
            degrees, minutes = divmod(minutes, 60)
            gps[tag + 1] = (degrees, minutes, TiffImagePlugin.IFDRational(round(seconds * 1000), 1000))
        if heading is not None:
            gps[17] = heading
    if taken:
        exif.get_ifd(ExifTags.IFD.Exif)[0x9003] = taken
    Image.new("RGB", (8, 8)).save(path, exif=exif)


def test_a_folder_of_names_is_sorted_and_reads_no_image(tmp_path):
    root = tmp_path / "images"
    for key in (
        "b/" + name(heading="2"),
        "a-b/" + name(heading="3"),
        "a/" + name(heading="1"),
        name(heading="9"),
    ):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(b"not an image")
    (root / "readme.md").write_text("no image")
    (root / ".hidden.jpg").write_text("no image")
    result, manifest = index(root, tmp_path)
    keys = manifest.column("key").tolist()
    assert keys == sorted(keys)
    assert len(keys) == 4
    assert manifest.source == "names"
    assert result.skipped == {}


def test_a_folder_of_photos_is_read_by_exif(tmp_path):
    root = tmp_path / "walk"
    photo(root / "1.jpg", (31.26196648, 34.80118454), heading=123.5, taken="2025:12:22 09:47:11")
    photo(root / "2.JPEG", (31.262, 34.802))
    photo(root / "3.jpg")
    (root / "4.jpg").write_bytes(b"torn")
    result, manifest = index(root, tmp_path)
    assert manifest.column("key").tolist() == ["1.jpg", "2.JPEG"]
    assert manifest.column("timestamp").tolist() == ["2025-12-22T09:47:11", ""]
    np.testing.assert_array_equal(manifest.column("heading"), np.array([123.5, np.nan], np.float32))
    east, north, _, _ = utm.from_latlon(31.26196648, 34.80118454)
    assert np.hypot(*(manifest.positions()[0] - [east, north])) < 0.1
    assert (manifest.zone, manifest.source) == ("36R", "exif")
    assert result.skipped == {
        "no position in the name, none in the EXIF data": 1,
        "no position in the name, not a readable image": 1,
    }


def test_a_photo_south_and_west_has_negative_degrees(tmp_path):
    photo(tmp_path / "walk/1.jpg", (-22.9068, -43.1729))
    result, manifest = index(tmp_path / "walk", tmp_path)
    east, north, number, band = utm.from_latlon(-22.9068, -43.1729)
    assert result.zone == f"{number}{band}"
    assert np.hypot(*(manifest.positions()[0] - [east, north])) < 0.1


def test_a_folder_of_both_takes_names_first(tmp_path):
    root = tmp_path / "images"
    photo(root / name(), (31.0, 34.0))
    photo(root / "plain.jpg", (37.757, -122.509))
    _, manifest = index(root, tmp_path)
    assert manifest.column("key").tolist() == [name(), "plain.jpg"]
    first, second = manifest.positions()
    assert first.tolist() == [543256.96, 4178906.70]
    assert np.hypot(*(second - first)) < 100


def test_gps_that_divides_by_zero_is_no_position(tmp_path):
    exif = Image.Exif()
    zero = TiffImagePlugin.IFDRational(0, 0)
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (zero, zero, zero), 3: "E", 4: (zero, zero, zero)})
    (tmp_path / "walk").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "walk/1.jpg", exif=exif)
    with pytest.raises(InputError, match="1 no position in the name, none in the EXIF data"):
        index(tmp_path / "walk", tmp_path)


@given(
    st.sets(
        st.lists(
            st.text("ab-.0", min_size=1, max_size=3).filter(lambda part: part[0] != "."),
            min_size=1,
            max_size=3,
        ).map(tuple),
        max_size=12,
    )
)
@settings(max_examples=40)
def test_keys_of_a_folder_come_in_the_order_of_their_text(tmp_path_factory, parts):
    root = tmp_path_factory.mktemp("tree")
    keys = ["/".join(part) + ".jpg" for part in parts]
    for key in keys:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).touch()
    assert list(keys_below(root)) == sorted(keys)


def test_a_link_that_leads_back_is_not_followed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.jpg").touch()
    (tmp_path / "a/loop").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a", target_is_directory=True)
    assert list(keys_below(tmp_path / "a")) == ["1.jpg"]


def test_an_empty_folder_a_missing_source_and_an_unknown_kind(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image with a usable position"):
        index(tmp_path / "empty", tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        index(tmp_path / "nowhere.csv", tmp_path)
    (tmp_path / "photos.json").write_text("{}")
    with pytest.raises(InputError, match="of no known kind"):
        index(tmp_path / "photos.json", tmp_path)


def test_progress_reaches_its_total(tmp_path):
    seen = []
    index(listed(tmp_path, [name()]), tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0


def test_facts_name_what_was_skipped(tmp_path):
    result, _ = index(listed(tmp_path, [name(), "bad.jpg"]), tmp_path)
    assert ("skipped: no position", "1 (first: bad.jpg)") in result.facts()


@pytest.mark.skipif(not CAMPUS.is_dir(), reason="the campus photos are not here")
def test_the_campus_photos(tmp_path):
    counts = {}
    zone = None
    for split in ("database", "queries"):
        output = tmp_path / f"{split}.parquet"
        result = run(IndexInputs(SKIP, CAMPUS / f"{split}.csv", output, split, zone))
        zone = result.zone
        counts[split] = result.rows
        manifest = Manifest.open(tmp_path / f"{split}.parquet")
        assert manifest.image_path(manifest.keys(0, 1)[0]).is_file()
        assert manifest.column_names[-3:] == ["session", "device", "light"]
    assert zone == "36R"
    assert counts == {"database": 1175, "queries": 205}
