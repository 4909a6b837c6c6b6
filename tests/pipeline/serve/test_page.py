"""The page of `pipeline serve` in a real browser, on a desktop and on a phone."""

from __future__ import annotations

import re

import pytest

from pipeline.locate.localiser import PhotoLocaliser
from pipeline.serve.app import make_app, page_file
from pipeline.serve.limits import Limits
from tests.pipeline.locate.test_locate import recipe, save_localiser, scene, with_gps
from tests.support.browser import BROWSER, Browser
from tests.support.uploads import ask, serving

DONE = "document.title === 'Located photos' && Boolean(document.querySelector('.map').dataset.drawn)"
DROP = """
const files = new DataTransfer();
files.items.add(new File([new Uint8Array(%s)], "dropped.png", { type: "image/png" }));
document.body.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: files }));
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    model = save_localiser(tmp_path_factory.mktemp("model") / "localiser", recipe(), calibrated=True)
    with serving(make_app(PhotoLocaliser.load(model), Limits(1_000_000, 3, 1_000_000, 20.0))) as port:
        yield port


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    scene(seed=2).save(folder / "<b>bold.png")
    (folder / "broken.jpg").write_bytes(b"no photo")
    return [with_gps(folder / "gps.jpg", 37.766, -122.42), folder / "<b>bold.png", folder / "broken.jpg"]


def test_the_page_asks_no_other_host(port):
    page = ask(port, "/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = page.body.decode() + page_file("upload.js") + page_file("upload.css")
    assert "//" not in re.sub(r"^ *//.*|; //.*", "", text, flags=re.MULTILINE)
    assert 'capture="environment"' in text


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome")
@pytest.mark.parametrize(("width", "height", "phone"), [(1280, 800, False), (390, 844, True)])
def test_photos_are_chosen_and_shown_on_a_map(port, photos, tmp_path, width, height, phone):
    with Browser(tmp_path / "profile", width=width, height=height, phone=phone) as browser:
        browser.open(f"http://127.0.0.1:{port}/")
        camera = "getComputedStyle(document.querySelector('.camera')).display !== 'none'"
        assert browser.run(camera) is phone
        browser.choose_files("#files", photos)
        browser.wait(DONE)
        assert browser.run("document.querySelector('.map').dataset.drawn") == "2"
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        text = browser.run("document.body.textContent")
        assert "broken.jpg: not an image of a known format" in text
        assert "<b>bold.png" in text
        own = [url for url in browser.requested() if not url.startswith("data:")]
        assert all(url.startswith(f"http://127.0.0.1:{port}/") for url in own)
        assert browser.complaints() == []


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome")
def test_photos_can_be_dropped_but_not_too_many(port, photos, tmp_path):
    with Browser(tmp_path / "profile", width=1280, height=800) as browser:
        address = f"http://127.0.0.1:{port}/"
        browser.open(address)
        browser.choose_files("#files", [photos[1]] * 4)
        browser.wait("document.querySelector('#note.error') !== null")
        assert "4 photos are too many: choose up to 3" in browser.run("document.body.textContent")
        browser.run(DROP % list(photos[1].read_bytes()))
        browser.wait(DONE)
        assert browser.run("document.querySelector('.map').dataset.drawn") == "1"
        browser.run("history.back()")
        browser.wait(f"location.href === {address!r} && !document.querySelector('.busy')")
        assert browser.complaints() == []
