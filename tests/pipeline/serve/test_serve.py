"""`pipeline serve`: answers, limits, the token, metrics, and requests that try to stop it."""

from __future__ import annotations

import base64
import http.client
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.locate.localiser import PhotoLocaliser
from pipeline.serve.answering import Answering
from pipeline.serve.app import make_app
from pipeline.serve.limits import Limits, UploadMemory
from tests.pipeline.locate.test_locate import recipe, save_localiser, scene
from tests.support.uploads import (
    FORM,
    ask,
    content,
    form,
    hostile_requests,
    jpeg_of_many_scans,
    png_bomb,
    send,
    serving,
)

LIMITS = Limits(photo_bytes=1_000_000, photos=4, pixels=1_000_000, seconds=20.0)
HOSTILE = 100


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_localiser(tmp_path_factory.mktemp("model") / "localiser", recipe(), calibrated=True)


@pytest.fixture(scope="module")
def localiser(model):
    return PhotoLocaliser.load(model, crops=1)


@pytest.fixture(scope="module")
def port(localiser):
    with serving(make_app(localiser, LIMITS)) as port:
        yield port


@pytest.fixture(scope="module")
def photos():
    return [content(scene(seed=number), "PNG") for number in range(8)]


def answers(reply):
    assert reply.status == 200, reply.body
    return json.loads(reply.body)


def detail(reply):
    return reply.status, json.loads(reply.body)["detail"]


def alone(localiser, photo, name="0.jpg", **options):
    return {**localiser.locate(photo, **options).as_dict(), "photo": name}


def test_the_answer_is_that_of_locate(localiser, port, photos):
    reply = send(port, [photos[0], b"no photo", photos[1]])
    first, error, last = answers(reply)
    assert first == alone(localiser, photos[0])
    assert error == {"photo": "1.jpg", "error": "not an image of a known format"}
    assert last == alone(localiser, photos[1], "2.jpg")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-store"


def test_top_and_near_are_those_of_locate(localiser, port, photos):
    (answer,) = answers(send(port, photos[:1], "/locate?top=2"))
    assert answer == alone(localiser, photos[0], top=2)
    place = answer["places"][1]
    near = f"{place['latitude']},{place['longitude']},15"
    (answer,) = answers(send(port, photos[:1], f"/locate?near={near}"))
    assert abs(answer["utm_east"] - place["utm_east"]) < 40
    assert detail(send(port, photos[:1], "/locate?near=1,2"))[0] == 422
    status, text = detail(send(port, photos[:1], "/locate?near=10,10,5"))
    assert (status, "no place of this localiser is within 5 m" in text) == (422, True)
    assert send(port, photos[:1], "/locate?top=0").status == 422


def test_near_needs_a_localiser_that_fuses_evidence(tmp_path, photos):
    plain = PhotoLocaliser.load(save_localiser(tmp_path / "plain", recipe()), crops=1)
    with serving(make_app(plain, LIMITS)) as port:
        (answer,) = answers(send(port, photos[:1]))
        near = f"{answer['latitude']},{answer['longitude']},50"
        status, text = detail(send(port, photos[:1], f"/locate?near={near}"))
    assert (status, "run `pipeline train-heads` again" in text) == (422, True)


def test_many_clients_get_their_own_answers(localiser, port, photos):
    expected = [alone(localiser, photo) for photo in photos]
    assert len({answer["utm_east"] for answer in expected}) > 1
    with ThreadPoolExecutor(8) as pool:
        replies = pool.map(lambda number: (number % 8, send(port, [photos[number % 8]])), range(40))
        for number, reply in replies:
            assert answers(reply) == [expected[number]]


def test_photos_of_one_name_are_told_apart(port, photos):
    body = form(photos[:2], names=["image.jpg", "image.jpg"])
    both = answers(ask(port, "/locate", body=body, Content_Type=FORM))
    assert [answer["photo"] for answer in both] == ["image.jpg", "image.jpg (2)"]
    body = form(photos[:2], names=["image.jpg", "./image.jpg"])
    page = ask(port, "/map", body=body, Content_Type=FORM).body
    data = json.loads(re.search(rb'id="map-data">(.*?)</script>', page, re.DOTALL)[1])
    assert len({item["photo"] for item in data["items"]}) == 2


def test_a_photo_above_a_limit_is_an_error_of_its_own(port, photos, monkeypatch):
    large = content(scene(1200, 900), "BMP")
    wide = content(scene(1001, 1000))
    scans = jpeg_of_many_scans(101)
    outcomes = answers(send(port, [large, wide, scans, photos[0]]))
    assert [outcome.get("error") for outcome in outcomes] == [
        "larger than 1 MB",
        "1,001 x 1,000 pixels, more than 1 megapixels",
        "a JPEG with more than 100 scans",
        None,
    ]
    (bomb,) = answers(send(port, [png_bomb(60_000, 60_000)]))
    assert bomb["error"] == "more pixels than the safe limit"


def test_a_bomb_is_rejected_before_it_is_decoded(localiser, port, monkeypatch):
    monkeypatch.setattr(localiser.features, "read", lambda *_, **__: pytest.fail("decoded"))
    for photo in (png_bomb(60_000, 60_000), png_bomb(1001, 1000), jpeg_of_many_scans(101), b"", b"text"):
        assert "error" in answers(send(port, [photo]))[0]


def test_a_request_above_a_limit_is_rejected(port, photos):
    assert detail(send(port, [b"x"] * 5)) == (413, "more than 4 photos in one request")
    assert detail(send(port, [bytes(1_200_000)] * 4))[0] == 413
    assert detail(ask(port, "/locate", body=b"{}", Content_Type="application/json"))[0] == 415
    status, text = detail(ask(port, "/locate", body=form(photos[:1], field="file"), Content_Type=FORM))
    assert (status, text) == (422, "no photo: expected one or several multipart fields 'photo'")
    cut = ask(port, "/locate", body=form(photos[:1])[:-10], Content_Type=FORM)
    assert detail(cut) == (400, "the multipart body is damaged: its last boundary is missing")


def test_a_request_without_time_or_memory_left_ends(localiser, photos, monkeypatch):
    read = localiser.features.read
    app = make_app(localiser, Limits(1_000_000, 4, 1_000_000, seconds=0.3))
    with serving(app) as port:
        monkeypatch.setattr(localiser.features, "read", lambda *_, **__: time.sleep(0.8))
        assert detail(send(port, photos[:1])) == (503, "not finished within 0.3 s")
        monkeypatch.setattr(localiser.features, "read", read)
    monkeypatch.setattr("pipeline.serve.app.UploadMemory", lambda: UploadMemory(len(photos[0]) + 10))
    with serving(make_app(localiser, LIMITS)) as port:
        assert detail(send(port, photos[:2])) == (503, "busy: too many photos at once")
        assert len(answers(send(port, photos[:1]))) == 1
        assert len(answers(send(port, photos[:1]))) == 1


def test_a_fault_in_the_program_ends_one_request(localiser, photos, monkeypatch, capfd):
    with serving(make_app(localiser, LIMITS)) as port:
        with monkeypatch.context() as patch:
            patch.setattr(Answering, "_answers", lambda *_: 1 / 0)
            patch.setattr(localiser.features, "of", lambda _: 1 / 0)
            assert send(port, photos[:1]).status == 500
        assert len(answers(send(port, photos[:1]))) == 1
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_token_guards_all_but_health(localiser, photos):
    basic = f"Basic {base64.b64encode(b'anyone:secret').decode()}"
    with serving(make_app(localiser, LIMITS, "secret")) as port:
        for path in ("/", "/metrics"):
            assert ask(port, path).status == 401
            assert ask(port, path, Authorization=basic).status == 200
        for wrong in ({}, {"Authorization": "Bearer secre"}, {"Authorization": "Basic !"}):
            rejected = send(port, photos[:1], **wrong)
            assert rejected.status == 401
            assert rejected.headers["www-authenticate"].startswith("Basic")
        for right in (basic, "Bearer secret"):
            assert send(port, photos[:1], Authorization=right).status == 200
        assert ask(port, "/health").status == 200


def test_health_metrics_and_schema(localiser, port, photos):
    send(port, [photos[0], b"no photo"])
    assert json.loads(ask(port, "/health").body)["places"] == len(localiser.trained.places)
    text = ask(port, "/metrics").body.decode()
    assert re.search(r'placecache_photos_total\{outcome="unreadable"\} [1-9]', text)
    assert re.search(r'placecache_requests_total\{path="/locate",status="200"\} [1-9]', text)
    assert 'placecache_request_seconds_bucket{le="0.25"}' in text
    schema = json.loads(ask(port, "/openapi.json").body)
    assert set(schema["paths"]) == {"/locate", "/map", "/metrics", "/health"}
    assert schema["paths"]["/locate"]["post"]["requestBody"]["content"].keys() == {"multipart/form-data"}
    assert {ask(port, path).status for path in ("/docs", "/redoc", "/absent", "/upload.html")} == {404}


def test_names_of_uploads_are_never_read_from_the_disk(port, photos, tmp_path):
    on_disk = tmp_path / "secret.png"
    scene(seed=9).save(on_disk)
    page = ask(port, "/map", body=form([photos[0]], names=[str(on_disk)]), Content_Type=FORM)
    same = ask(port, "/map", body=form([photos[0]], names=["0.jpg"]), Content_Type=FORM)
    pictures = [re.findall(rb"data:image/jpeg;base64,[^\"]+", reply.body) for reply in (page, same)]
    assert pictures[0] == pictures[1] != []
    bad = ask(port, "/map", body=form([b"no photo"], names=[str(on_disk)]), Content_Type=FORM)
    assert b"data:image/jpeg" not in bad.body
    assert b"not an image of a known format" in bad.body


def test_hostile_requests_do_not_stop_it(localiser, port, photos):
    seen = set()
    for kind, headers, body in hostile_requests(HOSTILE):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("POST", "/locate", body, headers)
            status = connection.getresponse().status
        except (ConnectionError, http.client.HTTPException):  # rejected before the end of the body
            status = 0
        finally:
            connection.close()
        assert status in {0, 200, 400, 413, 415, 422}, (kind, status)
        seen.add(status)
    assert {200, 400, 413, 422} <= seen
    assert answers(send(port, photos[:1])) == [alone(localiser, photos[0])]
