"""Photos as people hold them: paths, bytes, file objects, images, arrays and tensors; streams and threads."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from pipeline.locate.localiser import PhotoLocaliser
from stages.errors import InputError
from stages.images.read import UnreadableImage
from tests.pipeline.locate.test_locate import recipe, save_localiser, scene, with_gps


@pytest.fixture(scope="module")
def localiser(tmp_path_factory):
    return PhotoLocaliser.load(
        save_localiser(tmp_path_factory.mktemp("model") / "localiser", recipe()), crops=1
    )


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    return with_gps(tmp_path_factory.mktemp("photos") / "a.png", 37.766, -122.42)


def places(answer):
    return [asdict(place) for place in answer.places]


SOURCES = {
    "text": str,
    "path": Path,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "file object": lambda path: io.BytesIO(path.read_bytes()),
    "open file": lambda path: path.open("rb"),
    "image": Image.open,
    "array": lambda path: np.asarray(Image.open(path)),
    "array upside down in memory": lambda path: np.flipud(np.flipud(np.asarray(Image.open(path))).copy()),
    "tensor": lambda path: torch.tensor(np.asarray(Image.open(path))).permute(2, 0, 1),
    "tensor of floats": lambda path: torch.tensor(np.asarray(Image.open(path))).permute(2, 0, 1) / 255,
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_photo_gets_the_same_answer(localiser, photo, kind):
    expected = localiser.locate(photo)
    source = SOURCES[kind](photo)
    answer = localiser.locate(source)
    assert places(answer) == places(expected)
    has_exif = not kind.startswith(("array", "tensor"))
    assert answer.exif == (expected.exif if has_exif else None)
    named = kind in {"text", "path", "open file", "image"}
    assert (answer.photo == photo) if named else str(answer.photo).startswith("<")
    (together,) = localiser.locate_together([SOURCES[kind](photo)])
    assert places(together) == places(expected)


def test_an_image_is_turned_upright_and_left_alone(localiser):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file = io.BytesIO()
    scene().rotate(90, expand=True).save(file, "PNG", exif=exif)
    image = Image.open(file)
    size = image.size
    assert places(localiser.locate(image)) == places(localiser.locate(scene()))
    assert image.size == size
    grey = scene().convert("L")
    assert places(localiser.locate(grey)) == places(localiser.locate(grey.convert("RGB")))
    assert grey.mode == "L"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"array of shape \(3, 8, 8\)"),
        (np.zeros((8, 8, 3)), "type float64: expected RGB pixels"),
        (torch.zeros(8, 8, 3), r"tensor of shape \(8, 8, 3\)"),
        (torch.zeros(1, 3, 8, 8), "tensor of shape"),
        (torch.full((3, 8, 8), 1.5), "before any normalisation"),
        (torch.full((3, 8, 8), torch.nan), "before any normalisation"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), r"type torch\.int64"),
        (io.StringIO("text"), 'open it with mode "rb"'),
        (7, "a photo is a int: expected a path, bytes"),
    ],
)
def test_what_is_no_photo_is_an_error_with_the_fix(localiser, source, message):
    with pytest.raises(InputError, match=message) as error:
        localiser.locate(source)
    assert not isinstance(error.value, UnreadableImage)


def test_unreadable_content_is_the_error_of_one_photo(localiser, photo):
    broken = Image.open(io.BytesIO(photo.read_bytes()[:-900]))
    sources = [b"", photo.read_bytes()[:200], broken, Image.new("RGB", (0, 4)), io.BytesIO(b"text"), photo]
    outcomes = list(localiser.locate_all(sources))
    assert [type(outcome).__name__ for outcome in outcomes] == ["UnreadableImage"] * 5 + ["Answer"]
    assert outcomes[0].reason == "empty file"
    assert outcomes[3].reason == "0 x 4 pixels"


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_stream_is_read_a_batch_at_a_time(localiser, photo, monkeypatch, at_once):
    monkeypatch.setattr(localiser.features, "at_once", at_once)
    batches, drawn = [], []
    forward = localiser.backbone.forward
    monkeypatch.setattr(
        localiser.backbone, "forward", lambda pixels: batches.append(len(pixels)) or forward(pixels)
    )

    def stream():
        for number in range(3000):
            drawn.append(number)
            yield b"no image" if number == 1 else scene(seed=number)

    answers = localiser.locate_all(stream())
    first = [next(answers) for _ in range(6)]
    assert len(drawn) == -(-6 // at_once) * at_once
    assert batches == ([1] * 5 if at_once == 1 else [3, 4])
    assert isinstance(first.pop(1), UnreadableImage)
    alone = [localiser.locate(scene(seed=number)) for number in (0, 2, 3, 4, 5)]
    assert [places(answer) for answer in first] == [places(answer) for answer in alone]


def test_eight_threads_get_the_right_answers(localiser, photo):
    sources = [scene(seed=number) for number in range(8)]
    expected = [places(localiser.locate(source)) for source in sources]
    assert len({str(answer) for answer in expected}) > 1

    def work(thread):
        order = [(thread + step) % 8 for step in range(8)] * 2
        return [(number, places(localiser.locate(sources[number]))) for number in order]

    with ThreadPoolExecutor(8) as pool:
        for outcomes in pool.map(work, range(8)):
            assert all(answer == expected[number] for number, answer in outcomes)
