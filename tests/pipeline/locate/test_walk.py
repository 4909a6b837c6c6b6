"""Photos of a walk: their times and sessions, the answers they share, and the GPX track."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import ExifTags, Image

from pipeline.locate.localiser import PhotoLocaliser
from pipeline.locate.map_page import write_map
from pipeline.locate.photos import read_photo
from pipeline.locate.walk import UNTIMED_STEP_S, moments_of
from stages.eval.report.base_map import BaseMap
from stages.images.read import UnreadableImage
from tests.pipeline.locate.test_locate import call, recipe, save_localiser, scene

GPX = {"gpx": "http://www.topografix.com/GPX/1/1"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_localiser(tmp_path_factory.mktemp("model") / "localiser", recipe(), calibrated=True)


@pytest.fixture(scope="module")
def localiser(model):
    return PhotoLocaliser.load(model)


def shoot(path, time="", camera="", seed=1):
    """Save a photo with the time and the camera in its EXIF data."""
    exif = Image.Exif()
    if time:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = time
    if camera:
        exif[ExifTags.Base.Model] = camera
    path.parent.mkdir(exist_ok=True)
    scene(seed=seed).save(path, exif=exif)
    return path


def captured(*photos):
    return [read_photo(photo, decode_at_least=64)[0] for photo in photos]


def test_times_and_cameras_come_from_exif(tmp_path):
    first = shoot(tmp_path / "a.jpg", "2025:12:22 09:47:11", "phone A")
    second = shoot(tmp_path / "b.jpg", "2025:12:22 09:47:15", "phone B")
    third = shoot(tmp_path / "c.jpg", "2025:12:22 09:48:11", "phone A")
    moments = moments_of(captured(first, second, third))
    assert moments[2].seconds - moments[0].seconds == 60
    assert moments[0].session == moments[2].session != moments[1].session
    assert moments[0].timestamp == "2025-12-22T09:47:11"


def test_without_any_time_the_order_counts(tmp_path):
    moments = moments_of(captured(*(shoot(tmp_path / f"{n}.jpg") for n in range(3))))
    assert [moment.seconds for moment in moments] == [0, UNTIMED_STEP_S, 2 * UNTIMED_STEP_S]


def test_one_photo_without_a_time_stays_alone(tmp_path):
    timed, untimed = shoot(tmp_path / "a.jpg", "2025:12:22 09:47:11"), shoot(tmp_path / "b.jpg")
    moments = moments_of(captured(timed, untimed))
    assert np.isnan([moment.seconds for moment in moments]).tolist() == [False, True]


def test_frames_of_a_video_follow_their_rate(tmp_path):
    frames = [shoot(tmp_path / f"{n}.jpg", "2025:12:22 09:47:11") for n in range(3)]
    assert [moment.seconds for moment in moments_of(captured(*frames), fps=4)] == [0, 0.25, 0.5]


def test_each_folder_is_a_walk_of_its_own(tmp_path):
    photos = [shoot(tmp_path / folder / f"{n}.jpg") for folder in "ab" for n in range(2)]
    moments = moments_of(captured(*photos))
    assert [moment.seconds for moment in moments] == [0, UNTIMED_STEP_S] * 2
    assert len({moment.session for moment in moments}) == 2


def test_one_photo_is_located_as_its_evidence_says(localiser, tmp_path):
    photo = shoot(tmp_path / "a.jpg", "2025:12:22 09:47:11")
    (walked,) = localiser.locate_walk([photo], speed_m_s=1.4)
    assert walked.walk.photos == 1
    assert walked.walk.after_s == 0
    assert walked.confidence == pytest.approx(localiser.locate(photo).confidence, abs=0.03)
    assert not walked.abstained


def test_a_sure_neighbour_moves_an_unsure_photo(localiser, tmp_path):
    photos = [shoot(tmp_path / f"{n}.jpg", f"2025:12:22 09:47:1{n}", seed=n) for n in range(4)]
    walked = localiser.locate_walk(photos, speed_m_s=1.4)
    alone = [localiser.locate_walk([photo], speed_m_s=1.4)[0] for photo in photos]

    def spread(answers):
        places = np.array([(a.places[0].utm_east, a.places[0].utm_north) for a in answers])
        return np.linalg.norm(np.diff(places, axis=0), axis=1).sum()

    assert spread(walked) <= spread(alone)
    assert [answer.walk.photos for answer in walked] == [4] * 4
    assert (walked[1].walk.before_s, walked[1].walk.after_s) == (1, 2)


def test_past_uses_only_earlier_photos(localiser, tmp_path):
    photos = [shoot(tmp_path / f"{n}.jpg", f"2025:12:22 09:47:1{n}", seed=n) for n in range(3)]
    past = localiser.locate_walk(photos, speed_m_s=1.4, look_at="past")
    shorter = localiser.locate_walk(photos[:2], speed_m_s=1.4, look_at="past")
    assert [answer.places for answer in past[:2]] == [answer.places for answer in shorter]
    assert [answer.walk.after_s for answer in past] == [0, 0, 0]


def test_unreadable_photos_keep_their_place(localiser, tmp_path):
    good = shoot(tmp_path / "a.jpg")
    bad = tmp_path / "b.jpg"
    bad.write_bytes(b"no image")
    outcomes = localiser.locate_walk([bad, good, bad], speed_m_s=1.4)
    assert [isinstance(outcome, UnreadableImage) for outcome in outcomes] == [True, False, True]
    assert localiser.locate_walk([bad], speed_m_s=1.4)[0].path == bad


def test_walk_command_prints_json_and_a_track(model, tmp_path, capsys):
    for n in (2, 0, 1):
        shoot(tmp_path / "walk" / f"{'cab'[n]}.jpg", f"2025:12:22 09:47:1{n}", seed=n)
    track = tmp_path / "track.gpx"
    code, out, _ = call(capsys, "locate", "--model", model, "--walk", "--format", "json", tmp_path / "walk")
    assert code == 0
    assert call(capsys, "locate", "--model", model, "--walk", "--output", track, tmp_path / "walk")[0] == 0
    answers = {Path(answer["photo"]).name: answer for answer in json.loads(out)}
    assert answers["c.jpg"]["walk"] | {"session": ""} == {
        "session": "", "timestamp": "2025-12-22T09:47:10", "photos": 3, "before_s": 0.0, "after_s": 2.0,
    }  # fmt: skip
    points = ElementTree.parse(track).findall("gpx:trk/gpx:trkseg/gpx:trkpt", GPX)
    assert [point.find("gpx:name", GPX).text for point in points] == ["c.jpg", "a.jpg", "b.jpg"]
    assert [point.find("gpx:time", GPX).text[-2:] for point in points] == ["10", "11", "12"]
    assert float(points[0].get("lat")) == pytest.approx(answers["c.jpg"]["latitude"])


@pytest.mark.parametrize("option", [("--past",), ("--fps", "2")])
def test_options_of_walks_need_walk(option, model, tmp_path, capsys):
    photo = shoot(tmp_path / "a.jpg")
    code, _, err = call(capsys, "locate", "--model", model, *option, photo)
    assert code != 0
    assert "--walk" in err


def test_the_map_draws_each_walk_in_order_of_time(localiser, tmp_path):
    photos = [shoot(tmp_path / f"{'cab'[n]}.jpg", f"2025:12:22 09:47:1{n}", seed=n) for n in (2, 0, 1)]
    answers = localiser.locate_walk(photos, speed_m_s=0.7)
    write_map(tmp_path / "map.html", localiser.trained, answers, BaseMap())
    text = (tmp_path / "map.html").read_text()
    drawn = json.loads("[" + text.split('"paths":[', 1)[1].split("]]]", 1)[0] + "]]]")
    ordered = [answers[number].places[0] for number in (1, 2, 0)]
    assert drawn == [[[place.utm_east, place.utm_north] for place in ordered]]
