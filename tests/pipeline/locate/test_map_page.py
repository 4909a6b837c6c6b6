"""Outputs of `locate`: files for other programs, and the page with list and map, in a browser too."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.locate.alike import PHOTOS_OF_PLACE
from pipeline.locate.answer import Answer, Candidate
from pipeline.locate.formats import FORMATS
from pipeline.locate.localiser import PhotoLocaliser
from pipeline.locate.map_page import write_map
from stages.eval.report.base_map import BaseMap
from stages.images.read import UnreadableImage
from stages.models.localiser.exemplar_photos import ExemplarPhotos
from stages.models.localiser.exemplars import Exemplars
from stages.models.localiser.localiser import Localiser
from tests.pipeline.locate.test_locate import CORNER, call, recipe, save_localiser, scene
from tests.stages.eval.report.test_report import BROWSER, browse

EVIL = "<img src=x onerror=document.title=1>&'\".jpg"
COMMAND = "from pipeline.cli import main; main()"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A localiser whose places have one exemplar each, a photo beside it; the first has a hostile name."""
    folder = tmp_path_factory.mktemp("model")
    trained = Localiser.load(save_localiser(folder / "localiser", recipe(), calibrated=True))
    places = len(trained.places)
    keys = [EVIL, *(f"{n}.jpg" for n in range(1, places))]
    for number, key in enumerate(keys[:3]):
        scene(seed=number).save(folder / key)
    features = np.random.default_rng(0).normal(size=(places, trained.meta["features"])).astype(np.float32)
    photos = ExemplarPhotos(np.arange(places), pa.array(keys), trained.places.centres + 1.0, folder)
    exemplars = Exemplars.of(torch.from_numpy(features), np.arange(places), places)
    trained.exemplars = replace(exemplars, photos=photos)
    trained.save(folder / "localiser")
    return folder / "localiser"


@pytest.fixture
def photos(tmp_path):
    """Two photos, one with a hostile name, and a file that is no photo."""
    for number, name in enumerate((EVIL, "plain.jpg")):
        scene(seed=number).save(tmp_path / name)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    return [tmp_path / name for name in (EVIL, "plain.jpg", "broken.jpg")]


def answers(count, trained):
    """Made-up answers, so that no photo has to be computed."""
    random = np.random.default_rng(0)
    centres = trained.places.centres
    for number in range(count):
        east, north = centres[random.integers(len(centres))] + random.uniform(-5, 5, 2)
        places = tuple(
            Candidate(37.7, -122.4, float(east) + rank, float(north), "10S", 0.5 / (rank + 1), 0, 3)
            for rank in range(3)
        )
        yield Answer(Path(f"walk/{number:04}.jpg"), places, round(random.uniform(), 3), False, None, None)


def test_answers_name_photos_that_look_alike(model, photos):
    answer = PhotoLocaliser.load(model).locate(photos[1])
    shares = [place.score for place in answer.places]
    assert shares == sorted(shares, reverse=True)
    for place in answer.places:
        assert 1 <= len(place.alike) <= PHOTOS_OF_PLACE
        assert [photo.likeness for photo in place.alike] == sorted(
            (photo.likeness for photo in place.alike), reverse=True
        )
        away = [
            np.hypot(photo.utm_east - place.utm_east, photo.utm_north - place.utm_north)
            for photo in place.alike
        ]
        assert max(away) <= 25 + 2  # within the radius of the place, and the photo is beside its centre
    assert answer.as_dict()["places"][0]["alike"][0]["photo"] == answer.places[0].alike[0].photo


def test_reasons_follow_the_shares(model):
    answer = next(answers(1, PhotoLocaliser.load(model).trained))

    def reason(*shares, **changes):
        places = tuple(replace(answer.places[0], score=share) for share in shares)
        return replace(answer, places=places, **changes).reason

    assert reason(0.9, 0.05) == "one place stands out: it has 90% of the evidence"
    assert reason(0.4, 0.3, 0.1) == "2 places share the evidence: they have 40%, 30% of it"
    assert reason(0.1, 0.1).startswith("the evidence is spread over many places")
    for alone in ((0.9,), (0.1, 0.05), (0.9, 0.8)):
        assert reason(*alone, confidence=None).startswith("not calibrated")
    assert reason(0.9, abstained=True) == "nothing alike"


def test_every_format_holds_every_photo(model, photos, capsys):
    shown = {}
    for name in FORMATS:
        code, out, err = call(capsys, "locate", "--model", model, "--format", name, *photos)
        assert (code, err) == (1, ""), name
        shown[name] = out
    content = json.loads(shown["json"])
    assert [row.get("error") for row in content] == [None, None, "not an image of a known format"]
    rows = list(csv.DictReader(io.StringIO(shown["csv"])))
    assert [row["photo"] for row in rows] == [str(photo) for photo in photos]
    assert float(rows[0]["latitude"]) == content[0]["latitude"]
    features = json.loads(shown["geojson"])["features"]
    assert features[0]["geometry"]["coordinates"] == [content[0]["longitude"], content[0]["latitude"]]
    assert features[2]["geometry"] is None
    assert shown["gpx"].count("<trkpt") == 2
    assert "<img" not in shown["gpx"]


def test_the_ending_of_the_output_names_the_format(model, photos, tmp_path, capsys):
    code, out, err = call(capsys, "locate", "--model", model, "--output", tmp_path / "a.csv", photos[1])
    assert code == 0
    assert "plain.jpg" in out
    assert f"answers written: {tmp_path / 'a.csv'}" in err.replace("\n", "")
    assert (tmp_path / "a.csv").read_text().startswith("photo,latitude")
    code, _, err = call(capsys, "locate", "--model", model, "--output", tmp_path / "a.txt", photos[1])
    assert code == 2
    assert "--format" in err


def test_a_closed_pipe_loses_nothing(model, photos, tmp_path):
    outputs = ("--map", tmp_path / "map.html", "--output", tmp_path / "track.gpx")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        COMMAND,
        "locate",
        "--model",
        model,
        *outputs,
        *photos[:2],
    ]
    read, write = os.pipe()
    os.close(read)  # as `head` leaves it
    root = Path(__file__).parents[3]
    done = subprocess.run(
        list(map(str, command)), stdout=write, stderr=subprocess.PIPE, text=True, check=False, cwd=root
    )
    os.close(write)
    assert done.returncode == 0, done.stderr
    assert "map written" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "track.gpx").read_text().count("<trkpt") == 2
    assert "plain.jpg" in (tmp_path / "map.html").read_text()


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome")
def test_a_browser_shows_the_chosen_photo_and_its_like(model, photos, tmp_path):
    localiser = PhotoLocaliser.load(model)
    outcomes = [localiser.locate(photo, top=40) for photo in photos[:2]]
    write_map(tmp_path / "map.html", localiser.trained, outcomes, BaseMap())
    text = (tmp_path / "map.html").read_text()
    assert "onerror=document" not in re.sub(r"\\u003c[^\"]*", "", text)
    script = """
      document.querySelector("canvas").dispatchEvent(new KeyboardEvent("keydown", { key: "n" }));
    """
    text = re.sub("script-src '[^']*'", "script-src 'unsafe-inline'", text)
    (tmp_path / "chosen.html").write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    dom, log = browse(tmp_path / "chosen.html", tmp_path / "profile")
    assert log == ""
    assert "<title>Located photos</title>" in dom  # nothing of a name has run
    assert "1 of 2: " in dom
    assert "<figcaption>" in dom
    assert 'aria-selected="true"' in dom
    assert 'alt="Database photo"' in dom


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome")
def test_five_thousand_photos_stay_a_short_page(model, tmp_path):
    trained = PhotoLocaliser.load(model).trained
    write_map(tmp_path / "map.html", trained, list(answers(5000, trained)), BaseMap())
    dom, log = browse(tmp_path / "map.html", tmp_path / "profile")
    assert log == ""
    assert 'data-listed="5000"' in dom
    assert 'data-drawn="5000"' in dom
    assert 0 < dom.count('role="option"') < 60  # only the rows in view


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome")
def test_a_long_narrow_walk_is_turned_to_use_the_width(model, tmp_path):
    trained = PhotoLocaliser.load(model).trained
    walk = []
    for number, answer in enumerate(answers(9, trained)):
        north = CORNER[1] + 100 * number
        walk.append(replace(answer, places=(replace(answer.places[0], utm_east=CORNER[0], utm_north=north),)))
    write_map(tmp_path / "map.html", trained, walk, BaseMap())
    dom, log = browse(tmp_path / "map.html", tmp_path / "profile")
    assert log == ""
    assert 'data-turned="true"' in dom
    assert 'data-drawn="9"' in dom


def test_unreadable_photos_are_listed_escaped(model, tmp_path):
    trained = PhotoLocaliser.load(model).trained
    write_map(tmp_path / "map.html", trained, [UnreadableImage(Path(EVIL), "no such file")], BaseMap())
    text = (tmp_path / "map.html").read_text()
    assert "<img src=x" not in text
    assert "no such file" in text
