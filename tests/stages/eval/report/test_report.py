"""The report: escaped, within its budget, complete in a browser without network; errors are named."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jinja2 import UndefinedError
from PIL import Image

from stages.errors import ConfigError, InputError
from stages.eval.plots.figure import Plot
from stages.eval.report.config import ReportConfig
from stages.eval.report.gallery import Album, DatabasePhotos, chosen_queries, nearest_rows
from stages.eval.report.outcomes import Outcomes, images_of_true_cell
from stages.eval.report.page import SCRIPTS, json_text, render
from stages.eval.report.stage import ReportInputs, run
from stages.files import sha256_of, write_table
from stages.index.manifest import Manifest
from stages.index.manifest_writer import write_manifest
from stages.partition.classes import ClassTable
from stages.partition.identity import origin_of
from stages.partition.places import Places
from stages.partition.views import ViewPlan
from tests.support.training_city import partition

CONFIG = ReportConfig(queries=8, cells=2, photos_per_cell=2, thumbnail_px=48, photos_mb=1.0, map_queries=100)
CORNER = np.array([551_000.0, 4_180_000.0])
EVIL = "<img src=x onerror=alert(1)>&'\"</script><script>document.title=1</script>.jpg"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
BROWSER_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--window-size=1400,800 --disable-component-update --disable-sync --virtual-time-budget=4000 "
    "--enable-logging=stderr --v=0"
)


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((120, 90)).save(path, "JPEG")


def write_rows(path: Path, root: Path, keys: list[str], positions: np.ndarray, headings) -> None:
    batch = pa.record_batch(
        {
            "key": pa.array(keys),
            "utm_east": positions[:, 0].copy(),
            "utm_north": positions[:, 1].copy(),
            "heading": pa.array(headings, pa.float32()),
            "timestamp": pa.array([""] * len(keys)),
        }
    )
    write_manifest(path, [batch], root=root, zone="10S", source="csv")


def build(folder: Path, *, confident: bool = True) -> ReportInputs:
    """A city of 60 photos and 12 queries: one unreadable, one far outside, one with a hostile name."""
    random = np.random.default_rng(0)
    places = random.uniform(0, 200, (60, 2)) + CORNER
    keys = [f"{number:02}.jpg" for number in range(60)]
    for number, key in enumerate(keys):
        draw(folder / "database" / key, number)
    classes, labels = partition(places)
    classes.save(folder / "classes.parquet")
    np.save(folder / "labels.npy", labels)
    write_rows(folder / "database.parquet", folder / "database", keys, places, random.uniform(0, 360, 60))

    names = [EVIL.replace("/", "_"), *(f"q{number:02}.jpg" for number in range(1, 12))]
    for number, name in enumerate(names):
        draw(folder / "queries" / name, 100 + number)
    truth = random.uniform(0, 200, (12, 2)) + CORNER
    truth[5] += 4000
    write_rows(folder / "queries.parquet", folder / "queries", names, truth, np.full(12, np.nan))

    ids = np.stack([random.permutation(len(classes))[:5] for _ in names])
    first = classes.centres[ids[:, 0]]
    error = np.linalg.norm(first - truth, axis=1)
    ids[3], first[3], error[3] = -1, np.nan, np.inf
    columns = {
        "key": pa.array(names),
        "utm_east": truth[:, 0].copy(),
        "utm_north": truth[:, 1].copy(),
        "predicted_east": first[:, 0].copy(),
        "predicted_north": first[:, 1].copy(),
        "error_m": error,
        "score": np.where(np.isfinite(error), 0.5, -np.inf),
        "class_ids": pa.array(ids.tolist()),
    }
    if confident:
        confidence = random.uniform(0, 1, 12)
        columns |= {"confidence": confidence, "abstain": confidence < 0.3}
    write_table(folder / "predictions.parquet", pa.table(columns), {"radius_m": 60.0, "zone": "10S"})
    blocks = {
        "classify": {
            "LR@1": 41.7,
            "LR@1 low": 20.0,
            "LR@1 high": 60.0,
            "median_error_m": 71.0,
            "score": "cosine",
        },
        "hybrid": {"LR@1": 50.0, "median_error_m": None},
        "breakdown": {"cell tail LR@1": 12.5, "cell tail queries": 8},
    }
    (folder / "details.json").write_text(json.dumps(blocks))
    (folder / "lr_curve.csv").write_text("n,classify\n1,41.7\n2,50.0\n")
    return ReportInputs(
        config=CONFIG,
        predictions=folder / "predictions.parquet",
        details=folder / "details.json",
        recall_curve=folder / "lr_curve.csv",
        classes=folder / "classes.parquet",
        labels=folder / "labels.npy",
        database=folder / "database.parquet",
        queries=folder / "queries.parquet",
        output=folder / "report.html",
        plots=folder / "plots",
    )


class Page(HTMLParser):
    """The elements of a page with their attributes, and all its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return build(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def result(files):
    return run(files)


@pytest.fixture
def no_figures(monkeypatch):
    """Skip drawing figures that a test does not look at."""
    monkeypatch.setattr(Plot, "save_png", lambda *_: None)


@pytest.fixture(scope="module")
def page(files, result):
    return Page(files.output.read_text())


def test_the_result_counts_what_the_page_shows(files, result):
    assert result.queries == result.on_map == 12
    assert result.with_photos == 8
    assert result.plots == 5
    assert result.page_bytes == files.output.stat().st_size
    names = {path.name for path in files.plots.iterdir()}
    assert names == {"error_cdf.csv", "reliability.csv", "by_class_size.csv", "risk_coverage.csv", "figures"}
    assert len(list((files.plots / "figures").glob("*.png"))) == 5


def test_the_same_files_give_the_same_page(files, result, no_figures, tmp_path):
    run(replace(files, output=tmp_path / "again.html", plots=tmp_path / "plots"))
    assert (tmp_path / "again.html").read_bytes() == files.output.read_bytes()


def test_numbers_are_shown(page):
    assert "41.7" in page.text
    assert "95 %: 20.0 to 60.0" in page.text
    assert "in a tail cell" in page.text


def test_the_page_says_what_bounds_the_result(page):
    assert "at least 1 of 12 queries are farther than 60 m from every database photo: add" in page.text


def test_names_are_escaped(files, page):
    assert len(page.all("script")) == 2
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert EVIL.replace("/", "_") in page.text
    raw = files.output.read_text()
    assert "<img src=x" not in raw
    assert json_text({"a": "</script><!--\u2028"}).isascii()
    assert json.loads(json_text({"a": [np.float64("nan"), np.int64(3), "</script>"]}))["a"] == [
        None,
        3,
        "</script>",
    ]


def test_the_page_loads_nothing_from_elsewhere(page):
    for _, attributes in page.elements:
        for name in ("src", "href", "data", "action", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/jpeg;base64,"))
    policy = next(item["content"] for item in page.all("meta") if item.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline'; script" in policy
    assert not re.search(r"script-src[^;]*unsafe", policy)


def test_ids_are_unique_and_links_lead_somewhere(page):
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link["href"][1:] in ids


def test_the_page_is_accessible(page):
    assert all("alt" in image for image in page.all("img"))
    assert all(button.get("type") == "button" for button in page.all("button"))
    canvas = page.all("canvas")[0]
    assert canvas["tabindex"] == "0"
    assert canvas["aria-label"]
    assert page.all("html")[0]["lang"] == "en"


def test_failures_come_worst_first_unreachable_ones_last(files):
    outcomes = Outcomes.load(files.predictions)
    reachable = np.ones(12, bool)
    reachable[5] = False
    chosen = chosen_queries(outcomes, reachable, 20)
    wrong = [query for query in chosen if not outcomes.right[query]]
    assert chosen[: len(wrong)] == wrong
    assert wrong[-1] == 5
    assert list(outcomes.error_m[wrong[:-1]]) == sorted(outcomes.error_m[wrong[:-1]], reverse=True)
    assert 3 not in chosen  # an unreadable query has nothing to show
    assert len(set(chosen)) == len(chosen)
    few = chosen_queries(outcomes, reachable, 4)
    assert few[0] == wrong[0]
    assert outcomes.right[few[-1]]
    assert chosen_queries(outcomes, reachable, 0) == []


def test_photos_stay_within_their_budget(files, no_figures, tmp_path):
    tight = replace(CONFIG, photos_mb=0.008)
    outcome = run(replace(files, config=tight, output=tmp_path / "r.html", plots=tmp_path / "plots"))
    photos = re.findall(r"data:image/jpeg;base64,[^\"]+", (tmp_path / "r.html").read_text())
    assert 0 < sum(map(len, photos)) <= 8000
    assert outcome.left_out > 0
    assert f"{outcome.left_out} photos are left out" in (tmp_path / "r.html").read_text()


def test_thumbnails_are_small_and_none_for_unreadable_files(files, tmp_path):
    album = Album(32, 10_000)
    text = album.thumbnail(files.database.parent / "database" / "00.jpg")
    assert text.startswith("data:image/jpeg;base64,")
    assert album.thumbnail(tmp_path / "absent.jpg") is None
    assert album.left_bytes == 10_000 - len(text)


def test_photos_with_a_similar_heading_come_first(files):
    manifest = Manifest.open(files.database)
    labels = np.load(files.labels)
    largest = int(np.bincount(labels).argmax())
    photos = DatabasePhotos.of(manifest, labels, np.array([largest, largest]))
    heading = manifest.column("heading")
    shown = photos.of_class(largest, 99, heading=350.0)
    turns = [abs((heading[int(path.stem)] - 350 + 180) % 360 - 180) for path in shown]
    assert turns == sorted(turns)
    assert sorted(int(path.stem) for path in shown) == np.flatnonzero(labels == largest).tolist()


def test_the_nearest_photo_is_the_nearest(files):
    manifest = Manifest.open(files.database)
    places = manifest.positions()[[7, 30]] + 0.25
    rows, away = nearest_rows(manifest, places)
    expected = np.linalg.norm(manifest.positions()[:, None] - places, axis=2)
    np.testing.assert_array_equal(rows, expected.argmin(axis=0))
    np.testing.assert_allclose(away, expected.min(axis=0))


def test_images_of_the_true_cell():
    classes, _ = partition(np.array([[5.0, 5.0], [6.0, 5.0], [45.0, 5.0]]))
    truth = np.array([[19.9, 0.0], [41.0, 1.0], [25.0, 5.0], [-1.0, 5.0]])
    np.testing.assert_array_equal(images_of_true_cell(Places.of(classes), truth), [2, 1, 0, 0])


def test_only_answers_withheld_for_their_confidence_have_a_threshold(files):
    outcomes = Outcomes.load(files.predictions)
    given = outcomes.answered & ~outcomes.abstained
    assert outcomes.threshold == outcomes.confidence[given].min()
    unreadable = replace(outcomes, abstained=~outcomes.answered)
    most = outcomes.answered & (outcomes.confidence == np.nanmax(outcomes.confidence))
    unfamiliar = replace(outcomes, abstained=outcomes.abstained | most)
    assert (unreadable.threshold, unfamiliar.threshold) == (None, None)


def test_the_report_works_without_confidences(no_figures, tmp_path):
    files = build(tmp_path, confident=False)
    assert run(replace(files, config=replace(CONFIG, queries=0))).plots == 4
    assert files.plots.joinpath("reliability.csv").read_text() == "stated_percent,right_percent,queries\n"
    assert "confidence 0" not in files.output.read_text()


def test_the_map_samples_queries_but_keeps_those_with_cards(files, no_figures, tmp_path):
    few = replace(CONFIG, map_queries=3)
    outcome = run(replace(files, config=few, output=tmp_path / "r.html", plots=tmp_path / "plots"))
    text = (tmp_path / "r.html").read_text()
    items = items_of(text)
    assert outcome.on_map == len(items) < 12
    cards = re.findall(r'<article class="card \w+" id="([^"]+)"', text)
    assert {item["card"] for item in items if item["card"]} == set(cards)
    buttons = re.findall(r'id="(query-\d+)"><div.*?data-item="(\d+)"', text, re.DOTALL)
    assert len(buttons) == len(cards)
    assert all(items[int(number)]["card"] == card for card, number in buttons)


def test_files_that_do_not_match_are_named(files, tmp_path):
    with pytest.raises(InputError, match="pipeline eval"):
        run(replace(files, predictions=tmp_path / "absent.parquet"))
    with pytest.raises(InputError, match="pipeline eval"):
        run(replace(files, details=tmp_path / "absent.json"))
    with pytest.raises(InputError, match="pipeline partition"):
        run(replace(files, labels=tmp_path / "absent.npy"))
    np.save(tmp_path / "short.npy", np.zeros(5, np.int32))
    with pytest.raises(InputError, match="5 labels"):
        run(replace(files, labels=tmp_path / "short.npy"))
    labels = np.load(files.labels)
    np.save(tmp_path / "stacked.npy", np.stack([labels, labels], axis=1))
    with pytest.raises(InputError, match="run `pipeline train-heads` and `pipeline eval`"):
        run(replace(files, labels=tmp_path / "stacked.npy"))
    with pytest.raises(InputError, match="12 of them unknown"):
        run(replace(files, queries=files.database))


@pytest.mark.parametrize("change", [{"queries": -1}, {"cells": 0}, {"thumbnail_px": 8}, {"photos_mb": -1.0}])
def test_invalid_settings_are_rejected(change):
    with pytest.raises(ConfigError, match=f"report.{next(iter(change))}"):
        replace(CONFIG, **change)


def items_of(text: str) -> list[dict]:
    return json.loads(re.search(r'id="map-data">(.*?)</script>', text)[1])["items"]


def browse(path: Path, profile: Path) -> tuple[str, str]:
    """The DOM after the scripts have run, and the browser's log."""
    done = subprocess.run(
        [BROWSER, *BROWSER_FLAGS.split(), f"--user-data-dir={profile}", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome")
def test_a_browser_draws_the_map(files, result, tmp_path):
    dom, log = browse(files.output, tmp_path / "profile")
    drawn = re.search(r'<div class="map" id="map"[^>]*>', dom)[0]
    assert log == ""
    assert 'data-drawn="12"' in drawn
    assert int(re.search(r'data-cells="(\d+)"', drawn)[1]) > 20
    assert float(re.search(r'data-scale-m="([\d.]+)"', drawn)[1]) in {10, 20, 50, 100, 200, 500, 1000, 2000}
    assert "<title>placecache report</title>" in dom  # the hostile name's script has not run


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome")
def test_a_script_error_appears_in_the_browser_log(files, result, tmp_path):
    text = files.output.read_text().replace('"items":', '"itens":')
    (tmp_path / "broken.html").write_text(text)
    dom, log = browse(tmp_path / "broken.html", tmp_path / "profile")
    assert "TypeError" in log
    assert "data-drawn" not in dom


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome")
def test_keys_choose_queries_and_move_the_map(files, result, tmp_path):
    script = """
      const canvas = document.querySelector("canvas"), map = document.getElementById("map");
      const press = (key) => canvas.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
      press("n"); press("n"); press("-"); press("ArrowLeft");
      document.querySelector('[data-show="wrong"]').click();
    """
    text = files.output.read_text()
    text = re.sub("script-src '[^']*'", "script-src 'unsafe-inline'", text)
    (tmp_path / "moved.html").write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    dom, log = browse(tmp_path / "moved.html", tmp_path / "profile")
    assert log == ""
    assert "2 of 12: " in dom
    assert 'aria-pressed="false"' in dom
    right = sum(item["right"] for item in items_of(text))
    assert f'data-drawn="{right}"' in dom


def test_templates_and_assets_are_package_data():
    package = resources.files("stages.eval.report")
    templates = {entry.name: entry.read_text() for entry in (package / "templates").iterdir()}
    assert set(templates) == {"base.html", "map.html", "table.html", "report.html", "located.html"}
    assert "Content-Security-Policy" in templates["base.html"]
    assert all((package / name).read_text() for name in SCRIPTS)
    assert "--ink" in (package / "page.css").read_text()


def test_a_page_with_a_missing_value_is_an_error():
    with pytest.raises(UndefinedError, match="radius_m"):
        render("located.html", data={}, items=[], unreadable=[])


@pytest.mark.parametrize("name", ["details.json", "lr_curve.csv"])
def test_files_of_another_evaluation_are_rejected(tmp_path, name):
    inputs = build(tmp_path)
    rows = pq.read_table(inputs.predictions)
    origin = {"details": sha256_of(inputs.details), "curve": sha256_of(inputs.recall_curve)}
    write_table(inputs.predictions, rows, {"radius_m": 60.0, "zone": "10S", "origin": origin})
    run(inputs)
    page = inputs.output.read_bytes()
    file = tmp_path / name
    file.write_text(file.read_text().replace("41.7", "99.9"))
    with pytest.raises(InputError, match=rf"{name} does not belong to .*run `pipeline eval` again"):
        run(inputs)
    assert inputs.output.read_bytes() == page


def test_labels_of_another_partition_are_rejected(tmp_path):
    inputs = build(tmp_path)
    classes, labels = ClassTable.load(inputs.classes), np.load(inputs.labels)
    plan = ViewPlan.of_counts(np.zeros(len(labels), np.int64))
    origin = origin_of(Manifest.open(inputs.database), classes, labels, plan)
    replace(classes, origin=origin).save(inputs.classes)
    run(inputs)
    page = inputs.output.read_bytes()
    np.save(inputs.labels, np.roll(labels, 1))
    with pytest.raises(InputError, match=r"classes\.parquet was made with other files than .*labels\.npy"):
        run(inputs)
    np.save(inputs.labels, labels)
    run(inputs)
    positions = Manifest.open(inputs.database).positions() + 1
    keys = Manifest.open(inputs.database).keys(0, len(labels))
    write_rows(inputs.database, tmp_path / "database", keys, positions, np.zeros(len(labels)))
    with pytest.raises(InputError, match="run `pipeline train-heads` and `pipeline eval`, or `dvc repro`"):
        run(inputs)
    assert inputs.output.read_bytes() == page


def test_predictions_of_another_partition_are_rejected(tmp_path):
    inputs = build(tmp_path)
    classes, rows = ClassTable.load(inputs.classes), pq.read_table(inputs.predictions)
    note = {"radius_m": 60.0, "zone": "10S", "origin": {"partition": "one"}}
    write_table(inputs.predictions, rows, note)
    replace(classes, origin={"partition": "one"}).save(inputs.classes)
    run(inputs)
    replace(classes, origin={"partition": "two"}).save(inputs.classes)
    with pytest.raises(InputError, match=r"classes\.parquet does not belong to .*run `pipeline eval` again"):
        run(inputs)
