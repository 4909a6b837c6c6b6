"""What index says about files that changed since the source was last indexed."""

import os
import shutil
from pathlib import Path

import pytest

from stages.errors import InputError
from stages.index.file_changes import record_path
from stages.index.manifest import Manifest
from tests.support.index_sources import index, listed, name

KEYS = [f"{number}.jpg" for number in range(5)]


def photos(folder, keys=KEYS, date=1_000_000):
    """A list of small files of different lengths, all of one date."""
    lines = ["path,utm_east,utm_north,zone"]
    folder.mkdir(parents=True, exist_ok=True)
    for number, key in enumerate(keys):
        (folder / key).write_bytes(b"x" * (10 + number))
        os.utime(folder / key, (date, date))
        lines.append(f"{key},{500_000 + number},4000000,10S")
    (folder / "list.csv").write_text("\n".join(lines))
    return folder / "list.csv"


def changes(source, tmp_path):
    result, _ = index(source, tmp_path)
    return {label: text for label, text in result.facts() if label in LABELS}


LABELS = ("replaced", "newer date", "root folder", "earlier files")


def test_the_first_index_and_an_equal_one_say_nothing(tmp_path):
    source = photos(tmp_path / "a")
    assert changes(source, tmp_path) == {}
    assert changes(source, tmp_path) == {}


def test_replaced_files_and_newer_dates_are_counted(tmp_path):
    source = photos(tmp_path / "a")
    changes(source, tmp_path)
    (tmp_path / "a" / "0.jpg").write_bytes(b"another length")
    for key, date in (("1.jpg", 1_000_001), ("2.jpg", 2_000_000), ("3.jpg", 999_999)):
        os.utime(tmp_path / "a" / key, (date, date))
    assert changes(source, tmp_path) == {
        "replaced": "1 image has another length: extracted again by `pipeline extract`",
        "newer date": "2 images have a newer date and the same size: run `pipeline extract --replace` "
        "if their content changed",
    }
    assert changes(source, tmp_path) == {}  # said once


def test_dates_do_not_change_the_manifest(tmp_path):
    source = photos(tmp_path / "a")
    changes(source, tmp_path)
    manifest = tmp_path / "out" / "database.parquet"
    before = manifest.read_bytes()
    os.utime(tmp_path / "a" / "1.jpg", (2_000_000, 2_000_000))
    assert "newer date" in changes(source, tmp_path)
    assert manifest.read_bytes() == before


def test_changes_are_said_after_dvc_deleted_the_manifest(tmp_path):
    source = photos(tmp_path / "a")
    changes(source, tmp_path)
    (tmp_path / "out" / "database.parquet").unlink()
    (tmp_path / "a" / "0.jpg").write_bytes(b"another length")
    assert "replaced" in changes(source, tmp_path)


def test_rows_are_compared_by_key_and_not_by_place(tmp_path):
    source = photos(tmp_path / "a")
    changes(source, tmp_path)
    head, *rows = source.read_text().splitlines()
    source.write_text("\n".join([head, *reversed(rows[1:])]))
    (tmp_path / "a" / "4.jpg").write_bytes(b"x")
    assert changes(source, tmp_path) == {
        "replaced": "1 image has another length: extracted again by `pipeline extract`"
    }


def test_another_root_is_said_with_what_happens(tmp_path):
    changes(photos(tmp_path / "a"), tmp_path)
    said = changes(photos(tmp_path / "b", date=2_000_000), tmp_path)
    text = f"changed from {tmp_path}/a to {tmp_path}/b: 5 of 5 images have the same length there"
    assert said == {"root folder": f"{text}; features are reused for these"}

    source = photos(tmp_path / "c")
    (tmp_path / "c" / "0.jpg").write_bytes(b"another length")
    (tmp_path / "c" / "1.jpg").unlink()
    said = changes(source, tmp_path)["root folder"]
    assert "3 of 5 images have the same length there; features are reused for these" in said
    assert "; 1 image has another length: extracted again" in said
    assert "; 1 image has an unknown length: features are reused; run `pipeline extract --rep" in said

    said = changes(photos(tmp_path / "d", ["other.jpg"]), tmp_path)["root folder"]
    assert said.endswith("/d: no path was indexed before")


def test_lists_without_files_say_what_to_do_at_another_root(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    assert changes(listed(tmp_path / "a", [name()]), tmp_path) == {}
    said = changes(listed(tmp_path / "b", [name()]), tmp_path)["root folder"]
    assert "lengths are unknown, so features are reused for equal paths; run `pipeline extract --rep" in said


def test_a_moved_project_and_a_link_are_no_other_root(tmp_path, monkeypatch):
    project = tmp_path / "project"
    photos(project / "a")
    monkeypatch.chdir(project)
    assert changes(Path("a/list.csv"), Path()) == {}
    monkeypatch.chdir(tmp_path)
    shutil.move(project, tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert changes(Path("a/list.csv"), Path()) == {}
    (tmp_path / "link").symlink_to(tmp_path / "moved" / "a")
    assert changes(tmp_path / "link" / "list.csv", Path()) == {}


def test_a_column_named_like_the_lengths_is_rejected(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("path,utm_east,utm_north,zone,file_bytes\na.jpg,500000,4000000,10S,7")
    with pytest.raises(InputError, match=r"column named file_bytes, .*rename the column"):
        index(path, tmp_path)


def test_repeated_paths_are_recorded_once(tmp_path):
    source = photos(tmp_path / "a")
    source.write_text(source.read_text() + f"\n0.jpg,{500_000},4000000,10S")
    changes(source, tmp_path)
    assert changes(source, tmp_path) == {}


@pytest.mark.parametrize("content", [b"", b"PAR1 torn"])
def test_a_damaged_record_is_said_and_replaced(tmp_path, content):
    source = photos(tmp_path / "a")
    changes(source, tmp_path)
    record_path(tmp_path / "out" / "database.parquet").write_bytes(content)
    assert "damaged" in changes(source, tmp_path)["earlier files"]
    assert changes(source, tmp_path) == {}


def test_dates_beyond_64_bits_are_taken(tmp_path):
    source = photos(tmp_path / "a")
    os.utime(tmp_path / "a" / "0.jpg", ns=((1 << 63) + 10**10, (1 << 63) + 10**10))
    assert changes(source, tmp_path) == {}
    assert Manifest.open(tmp_path / "out" / "database.parquet").rows == 5
