"""Folders of images: order, positions from names and from EXIF data."""

import os

import numpy as np
import pytest
import utm
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, TiffImagePlugin

from stages.errors import InputError
from stages.images import formats
from stages.images.formats import SUFFIXES
from stages.index.skipped import read_skipped, skipped_path
from stages.index.sources.folder import keys_below
from tests.support.index_sources import SKIP, STOP, index, name


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
    assert result.skipped == {"hidden: its name begins with a dot": 1, "not an image by its ending": 1}
    assert result.endings == {".md": 1}
    assert ("endings", "1 .md") in result.facts()


def test_a_folder_of_photos_uses_exif_positions(tmp_path):
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


def test_heic_photos_without_a_reader_name_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "_HEIC_READER", "no_such_package")
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    photo(tmp_path / "walk/1.jpg", (31.262, 34.802))
    (tmp_path / "walk/2.heic").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(64))
    assert index(tmp_path / "walk", tmp_path)[0].skipped == {
        "a HEIC photo, which needs one more package: run `pip install 'placecache[heic]'`": 1
    }


def test_a_photo_south_and_west_has_negative_degrees(tmp_path):
    photo(tmp_path / "walk/1.jpg", (-22.9068, -43.1729))
    result, manifest = index(tmp_path / "walk", tmp_path)
    east, north, number, band = utm.from_latlon(-22.9068, -43.1729)
    assert result.zone == f"{number}{band}"
    assert np.hypot(*(manifest.positions()[0] - [east, north])) < 0.1


def test_names_take_precedence_over_exif(tmp_path):
    root = tmp_path / "images"
    photo(root / name(), (31.0, 34.0))
    photo(root / "plain.jpg", (37.757, -122.509))
    _, manifest = index(root, tmp_path)
    assert manifest.column("key").tolist() == [name(), "plain.jpg"]
    first, second = manifest.positions()
    assert first.tolist() == [543256.96, 4178906.70]
    assert np.hypot(*(second - first)) < 100


def test_other_names_with_at_signs_use_exif(tmp_path):
    root = tmp_path / "images"
    own = ["2024@05@06@cam.jpg", "@shop@front@x.jpg", "@543256@4178906@a@b@x.jpg", name(north="O4178906.70")]
    for key in own:
        photo(root / key, (37.757, -122.509))
    photo(root / "@no@exif@x.jpg")
    photo(root / name(zone="61"))
    result, manifest = index(root, tmp_path)
    assert sorted(manifest.column("key").tolist()) == sorted(own)
    assert np.ptp(manifest.positions(), axis=0).tolist() == [0, 0]
    assert result.skipped == {
        "no position in the name, none in the EXIF data": 1,
        "not a UTM zone: expected number and letter, such as 10S": 1,
    }


def test_gps_that_divides_by_zero_is_skipped(tmp_path):
    exif = Image.Exif()
    zero = TiffImagePlugin.IFDRational(0, 0)
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (zero, zero, zero), 3: "E", 4: (zero, zero, zero)})
    (tmp_path / "walk").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "walk/1.jpg", exif=exif)
    with pytest.raises(InputError, match="1 EXIF position cannot be read"):
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
def test_keys_of_a_folder_are_sorted_as_text(tmp_path_factory, parts):
    root = tmp_path_factory.mktemp("tree")
    keys = ["/".join(part) + ".jpg" for part in parts]
    for key in keys:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).touch()
    assert list(keys_below(root)) == sorted(keys)


def test_a_link_to_a_parent_folder_is_not_followed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.jpg").touch()
    (tmp_path / "a/loop").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a", target_is_directory=True)
    assert list(keys_below(tmp_path / "a")) == ["1.jpg"]


def test_photos_of_every_known_ending_are_indexed(tmp_path):
    root = tmp_path / "walk"
    for ending in SUFFIXES:
        photo(root / f"a{ending}.jpg", (31.26, 34.80))
        (root / f"a{ending}.jpg").rename(root / f"a{ending.upper()}")
    result, _ = index(root, tmp_path)
    assert (result.rows, result.skipped) == (len(SUFFIXES), {})


def test_what_is_no_file_is_skipped_with_a_reason(tmp_path):
    root = tmp_path / "walk"
    photo(root / "a.jpg", (31.26, 34.80))
    photo(root / "album.jpg/b.jpg", (31.26, 34.80))
    os.mkfifo(root / "fifo.jpg")
    (root / "broken.jpg").symlink_to("nowhere")
    (root / "circle.jpg").symlink_to("circle.jpg")
    (root / "device.jpg").symlink_to("/dev/zero")
    (root / "up").symlink_to(root)
    (root / "x").mkdir()
    (root / "y").mkdir()
    (root / "x/to-y").symlink_to(root / "y")
    (root / "y/to-x").symlink_to(root / "x")
    (root / ".hidden").mkdir()
    for name_of_other in ("clip.MP4", "other.mp4", "notes", ".DS_Store"):
        (root / name_of_other).touch()
    result, manifest = index(root, tmp_path, SKIP)
    assert manifest.column("key").tolist() == ["a.jpg", "album.jpg/b.jpg"]
    assert result.endings == {".mp4": 2, "no ending": 1}
    listed = dict(read_skipped(skipped_path(manifest.path)))
    no_file = "not a file: a FIFO, socket, device, broken or circular link"
    assert {key: reason for key, reason in listed.items() if reason == no_file} == dict.fromkeys(
        ("broken.jpg", "circle.jpg", "device.jpg", "fifo.jpg", "up/", "x/to-y/to-x/", "y/to-x/to-y/"), no_file
    )
    assert listed[".hidden"] == "hidden: its name begins with a dot"
    assert listed["notes"] == "not an image by its ending"
    assert len(listed) == sum(result.skipped.values()) == 11


def test_other_files_do_not_stop_a_strict_index(tmp_path):
    photo(tmp_path / "walk/a.jpg", (31.26, 34.80))
    (tmp_path / "walk/readme.md").touch()
    assert index(tmp_path / "walk", tmp_path, STOP)[0].rows == 1
