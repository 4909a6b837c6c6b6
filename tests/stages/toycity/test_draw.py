from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import utm
from PIL import Image

from stages.errors import InputError
from stages.toycity.config import CityConfig
from stages.toycity.draw import Renderer, draw, shot_name
from stages.toycity.streets import Shot

SMALL = CityConfig(images=40, queries=6, seed=3, image_px=96, outside_share=0.2)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("city") / "toycity"
    return folder, draw(SMALL, folder, workers=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_folder_holds_all_images(drawn):
    folder, result = drawn
    assert len(list((folder / "database").glob("*.jpg"))) == result.database == 40
    assert len(list((folder / "queries").glob("*.jpg"))) == result.queries == 6
    assert sum(result.images_per_street.values()) == 40
    record = json.loads((folder / "city.json").read_text())
    assert record["database"] == 40
    assert record["config"]["seed"] == 3
    with Image.open(next((folder / "queries").glob("*.jpg"))) as image:
        assert (image.size, image.mode) == ((96, 96), "RGB")


def test_two_processes_draw_the_same_bytes(drawn, tmp_path):
    progress = []
    draw(SMALL, tmp_path / "again", workers=2, progress=lambda done, total: progress.append((done, total)))
    assert contents(tmp_path / "again") == contents(drawn[0])
    assert progress[-1] == (46, 46)


def test_file_names_contain_the_position(drawn):
    for path in (drawn[0] / "database").glob("*.jpg"):
        fields = path.name.split("@")
        assert len(fields) == 16
        assert fields[0] == ""
        assert fields[-1] == ".jpg"
        east, north, zone, band = float(fields[1]), float(fields[2]), int(fields[3]), fields[4]
        again = utm.from_latlon(float(fields[5]), float(fields[6]))
        assert again[:2] == pytest.approx((east, north), abs=1.2)
        assert (again[2], again[3]) == (zone, band) == (10, "S")
        assert 0 <= int(fields[9]) < 360
        assert 1 <= int(fields[13][4:]) <= 12


def test_a_file_name_has_the_format_of_sfxl():
    shot = Shot("Oak Avenue", 234.5, 123.4, 359.7, "PANO", "201312", day=0, number=0)
    assert shot_name(shot, "") == "@0551234.50@4180123.40@10@S@037.76700@-122.41828@PANO@@0@@@@201312@@.jpg"


def test_the_same_city_is_not_drawn_again(drawn):
    folder, first = drawn
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert draw(SMALL, folder, workers=1) == replace(first, redrawn=False)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


@pytest.fixture
def fake_photos(monkeypatch):
    """Photos that contain only a description, for tests of the folder."""
    monkeypatch.setattr(Renderer, "photo", lambda _, shot: repr(shot).encode())


def test_another_city_replaces_the_whole_folder(drawn, tmp_path, fake_photos):
    folder = shutil.copytree(drawn[0], tmp_path / "toycity")
    first = contents(folder)
    other = replace(SMALL, seed=4, queries=1)
    assert draw(other, folder, workers=1).redrawn
    second = contents(folder)
    assert len(second) == 42
    assert set(first) & set(second) == {"city.json"}


def test_a_city_that_lacks_a_picture_is_drawn_again(drawn, tmp_path, fake_photos):
    folder = shutil.copytree(drawn[0], tmp_path / "toycity")
    next((folder / "database").glob("*.jpg")).unlink()
    assert draw(SMALL, folder, workers=1).redrawn
    assert set(contents(folder)) == set(contents(drawn[0]))


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"no city\.json"):
        draw(SMALL, tmp_path, workers=1)
    assert contents(tmp_path) == {"holiday.jpg": b"mine"}


def test_another_drawing_has_other_file_names(drawn, tmp_path):
    draw(replace(SMALL, image_px=64), tmp_path / "smaller", workers=1)
    assert not {path.rpartition("/")[2] for path in contents(tmp_path / "smaller") if path != "city.json"} & {
        path.rpartition("/")[2] for path in contents(drawn[0]) if path != "city.json"
    }
