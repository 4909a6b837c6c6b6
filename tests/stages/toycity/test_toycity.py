from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import utm
from PIL import Image

from stages.errors import ConfigError, InputError
from stages.toycity.config import CityConfig
from stages.toycity.drawing import draw
from stages.toycity.names import sfxl_name
from stages.toycity.render import Renderer
from stages.toycity.streets import ORIGIN, lay_out
from stages.toycity.visits import plan_visits

SMALL = CityConfig(images=40, queries=6, seed=3, image_px=96, outside_share=0.2)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("city") / "toycity"
    return folder, draw(SMALL, folder, workers=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_folder_holds_what_was_asked_for(drawn):
    folder, result = drawn
    assert len(list((folder / "database").glob("*.jpg"))) == result.database == 40
    assert len(list((folder / "queries").glob("*.jpg"))) == result.queries == 6
    assert sum(result.images_per_street.values()) == 40
    record = json.loads((folder / "city.json").read_text())
    assert record["database"] == 40
    assert record["config"]["seed"] == 3
    with Image.open(next((folder / "queries").glob("*.jpg"))) as image:
        assert (image.size, image.mode) == ((96, 96), "RGB")


def test_the_same_bytes_from_two_processes(drawn, tmp_path):
    progress = []
    draw(SMALL, tmp_path / "again", workers=2, progress=lambda done, total: progress.append((done, total)))
    assert contents(tmp_path / "again") == contents(drawn[0])
    assert progress[-1] == (46, 46)


def test_names_tell_the_position(drawn):
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


def test_a_name_is_written_as_sfxl_writes_it():
    name = sfxl_name(551234.5, 4180123.4, pano="PANO", heading_deg=359.7, timestamp="201312")
    assert name == "@0551234.50@4180123.40@10@S@037.76700@-122.41828@PANO@@0@@@@201312@@.jpg"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_head_cells_hold_tens_of_times_the_images_of_tail_cells(seed):
    config = CityConfig(1500, 200, seed, 256, 0.08)
    shots = plan_visits(lay_out(1500, seed), config)
    database = [shot for shot in shots if not shot.query]
    assert len(database) == 1500
    assert len({shot.path for shot in shots}) == 1700
    cells = Counter((int(s.utm[0] // 10), int(s.utm[1] // 10)) for s in database)
    counts = np.array(sorted(cells.values()))
    assert 100 <= len(counts) <= 220
    assert counts[-5:].mean() >= 8 * np.median(counts)
    assert counts.max() >= 20 * counts.min()


@pytest.mark.parametrize("share", [0.0, 0.08, 0.5])
def test_the_stated_share_of_queries_is_out_of_reach(share):
    config = CityConfig(600, 50, 4, 256, share)
    shots = plan_visits(lay_out(600, 4), config)
    database = np.array([shot.utm for shot in shots if not shot.query])
    queries = np.array([shot.utm for shot in shots if shot.query])
    nearest = np.hypot(*(queries[:, None] - database).transpose(2, 0, 1)).min(axis=1)
    assert (nearest > 25).sum() == round(50 * share)
    assert np.all(nearest[nearest <= 25] < 10)


def test_everybody_stands_on_a_street():
    city = lay_out(600, 5)
    west, south, east, north = (city.blocks + np.array(ORIGIN * 2)).T
    for shot in plan_visits(city, CityConfig(600, 50, 5, 256, 0.1)):
        x, y = shot.utm
        assert not np.any((west < x) & (x < east) & (south < y) & (y < north))


def test_the_same_city_is_not_drawn_again(drawn):
    folder, first = drawn
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert draw(SMALL, folder, workers=1) == replace(first, redrawn=False)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


@pytest.fixture
def blank_photos(monkeypatch):
    """Photos that hold nothing but their path, where only the folder matters."""
    monkeypatch.setattr(Renderer, "photo", lambda _, shot: shot.path.encode())


def test_another_city_replaces_the_whole_folder(drawn, tmp_path, blank_photos):
    folder = shutil.copytree(drawn[0], tmp_path / "toycity")
    first = contents(folder)
    other = replace(SMALL, seed=4, queries=1)
    assert draw(other, folder, workers=1).redrawn
    second = contents(folder)
    assert len(second) == 42
    assert set(first) & set(second) == {"city.json"}


def test_a_city_with_a_picture_missing_is_drawn_again(drawn, tmp_path, blank_photos):
    folder = shutil.copytree(drawn[0], tmp_path / "toycity")
    next((folder / "database").glob("*.jpg")).unlink()
    assert draw(SMALL, folder, workers=1).redrawn
    assert set(contents(folder)) == set(contents(drawn[0]))


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"no city\.json"):
        draw(SMALL, tmp_path, workers=1)
    assert contents(tmp_path) == {"holiday.jpg": b"mine"}


@pytest.mark.parametrize(
    ("key", "value"),
    [("images", 39), ("queries", 0), ("seed", -1), ("image_px", 32), ("outside_share", 0.7)],
)
def test_a_bad_setting_is_named(key, value):
    with pytest.raises(ConfigError, match=f"toycity.{key} is {value}"):
        replace(SMALL, **{key: value})


def test_other_pictures_never_go_under_the_same_names(drawn, tmp_path):
    draw(replace(SMALL, image_px=64), tmp_path / "smaller", workers=1)
    assert not {path.rpartition("/")[2] for path in contents(tmp_path / "smaller") if path != "city.json"} & {
        path.rpartition("/")[2] for path in contents(drawn[0]) if path != "city.json"
    }
