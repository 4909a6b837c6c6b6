"""Keys of lists: normal form, spelling of the files, the root, and images in both splits."""

import unicodedata

import numpy as np
import pytest

from stages.index.overlap import shared_images
from stages.index.skipped import read_skipped, skipped_path
from stages.index.sources import keys as module
from tests.support.index_sources import index, name


def listing(tmp_path, keys, stem="photos"):
    path = tmp_path / f"{stem}.csv"
    path.write_text("path,lat,lon\n" + "".join(f'"{key}",31.26,34.80\n' for key in keys))
    return path


def indexed(tmp_path, keys):
    result, manifest = index(listing(tmp_path, keys), tmp_path)
    return manifest.column("key").tolist(), result


def test_the_same_file_has_one_key(tmp_path):
    keys, result = indexed(
        tmp_path, ["a/b.jpg", "./a/b.jpg", "a//b.jpg", "x/../a/./b.jpg", f"{tmp_path}/a/b.jpg"]
    )
    assert keys == ["a/b.jpg"]
    assert result.skipped == {"key seen before": 4}


@pytest.mark.parametrize("key", ["../b.jpg", "a/../../b.jpg", "/elsewhere/b.jpg", "..", "/"])
def test_keys_never_leave_the_root(tmp_path, key):
    keys, result = indexed(tmp_path, ["a.jpg", key])
    assert keys == ["a.jpg"]
    assert list(result.skipped.values()) == [1]
    [(_, reason)] = read_skipped(skipped_path(tmp_path / "out/database.parquet"))
    assert "leads out of the folder" in reason


@pytest.mark.parametrize("look_ups", [1, 1000])
def test_keys_are_spelled_as_the_files_are(tmp_path, monkeypatch, look_ups):
    monkeypatch.setattr(module, "LOOK_UPS", look_ups)
    decomposed = unicodedata.normalize("NFD", "Caf\u00e9")
    (tmp_path / "sub" / decomposed).mkdir(parents=True)
    files = [f"sub/{decomposed}/{number}.jpg" for number in range(3)]
    for file in files:
        (tmp_path / file).touch()
    for spell in (
        lambda file: unicodedata.normalize("NFC", file),
        lambda file: file.replace("/", "\\"),
        lambda file: f" {file} ",
        lambda file: "." + unicodedata.normalize("NFC", f"/{file} ").replace("/", "\\"),
    ):
        keys, result = indexed(tmp_path, [spell(file) for file in files])
        assert keys == files
        assert result.absent == ()


def test_unusual_names_of_files_stay_as_they_are(tmp_path):
    names = ["a\\b.jpg", " c.jpg ", "Caf\u00e9.jpg", "Cafe\u0301.jpg", "gone\\d.jpg", ".e/..f.jpg"]
    for file in names[:4]:
        (tmp_path / file).touch()
    assert indexed(tmp_path, names)[0] == names


def test_absent_images_of_a_list_are_named(tmp_path):
    (tmp_path / "b.jpg").touch()
    keys, result = indexed(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    assert keys == ["a.jpg", "b.jpg", "c.jpg"]
    assert result.absent == (f"{tmp_path}/a.jpg", f"{tmp_path}/c.jpg")
    assert f"2 of the first images, such as {tmp_path}/a.jpg" in dict(result.facts())["not found"]


def test_a_list_of_windows_is_read(tmp_path):
    path = tmp_path / "list.txt"
    (tmp_path / "a").mkdir()
    for heading in ("1", "2"):
        (tmp_path / "a" / name(heading=heading)).touch()
    path.write_bytes("".join(f".\\a\\{name(heading=heading)}\r\n" for heading in ("1", "2")).encode("utf-16"))
    _, manifest = index(path, tmp_path)
    assert manifest.column("key").tolist() == [f"a/{name(heading=heading)}" for heading in ("1", "2")]
    np.testing.assert_array_equal(manifest.column("heading"), [1, 2])


def test_queries_that_are_database_photos_are_counted(tmp_path):
    (tmp_path / "sub").mkdir()
    _, database = index(listing(tmp_path, ["a.jpg", "sub/b.jpg", "c.jpg"]), tmp_path)
    database.path.rename(tmp_path / "database.parquet")
    database = type(database).open(tmp_path / "database.parquet")
    for folder, keys, expected in (
        (tmp_path, ["./c.jpg", "d.jpg", "a.jpg"], (2, ["c.jpg", "a.jpg"])),
        (tmp_path / "sub", ["b.jpg", "c.jpg"], (1, ["b.jpg"])),
        (tmp_path / "out", ["a.jpg"], (0, [])),
    ):
        _, queries = index(listing(folder, keys), tmp_path)
        assert shared_images(database, queries) == expected


def test_placeholders_are_no_headings(tmp_path):
    texts = ["-1", "-999", "-9999.0", "361", "1e39", "inf", "north", "", "-90", "0", "360", "90°", "-1.5"]
    path = tmp_path / "photos.csv"
    path.write_text(
        "path,lat,lon,heading\n" + "".join(f"{i},31.26,34.8,{text}\n" for i, text in enumerate(texts))
    )
    result, manifest = index(path, tmp_path)
    unknown = [np.nan] * 8
    np.testing.assert_array_equal(manifest.column("heading"), np.float32([*unknown, 270, 0, 360, 90, 358.5]))
    assert result.unknown_headings == 7
    assert ("headings unknown", 7) in result.facts()


def test_the_list_of_skipped_entries_is_complete(tmp_path):
    path = tmp_path / "photos.csv"
    path.write_text('path,lat,lon\na,31,34\n"b ""x"", [y]",,34\nc,31,x\na,31,34\nd,1\n')
    result, manifest = index(path, tmp_path)
    assert read_skipped(skipped_path(manifest.path)) == [
        ('b "x", [y]', "no position"),
        ("c", "position is not a number"),
        ("d,1", "more or fewer fields than the header"),
        ("a", "key seen before"),
    ]
    assert sum(result.skipped.values()) == 4
    assert read_skipped(tmp_path / "nowhere.csv") == []
