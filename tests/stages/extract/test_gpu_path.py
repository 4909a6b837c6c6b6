"""The GPU path of extraction as far as a CPU can run it: reading processes, JPEGs decoded in batches."""

from __future__ import annotations

import io
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from cache.reader import FeatureReader
from pipeline.runners.extract import device_of_worker
from stages.errors import ConfigError
from stages.extract import batch as batches
from stages.extract import read_ahead as reading
from stages.extract.batch import ImageReader, ImageRow
from stages.extract.read_ahead import end_readers
from stages.images.gpu_jpeg import decode_batch, plain_jpeg
from stages.images.read import decode_image
from stages.models.backbones.card import preprocess_for
from tests.support.tiny_photos import CONFIG, content, draw, listed, run

ROWS = 70
PREPROCESS = preprocess_for("efficientnet_lite0", 64)


def encoded(size, *, seed=0, mode="RGB", **options):
    """A smooth picture's file: decoders disagree only about colour at sharp edges."""
    values = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    picture = Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.filter(ImageFilter.GaussianBlur(2)).convert(mode).save(file, "JPEG", quality=92, **options)
    return file.getvalue()


def turned(size):
    exif = Image.Exif()
    exif[274] = 6
    return encoded(size, exif=exif)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    keys = [f"{number:03d}.jpg" for number in range(ROWS)]
    for number, key in enumerate(keys):
        draw(root / key, number)
    (root / keys[5]).write_bytes((root / keys[5]).read_bytes()[:200])
    (root / keys[6]).write_bytes(turned((60, 40)))
    return listed(root / "list.parquet", root, keys)


def test_batched_jpegs_give_the_same_pixels():
    files = {3: encoded((90, 70)), 0: encoded((64, 120), seed=1), 1: encoded((90, 70), seed=2, mode="L")}
    pixels = torch.zeros((5, 64, 64, 3), dtype=torch.uint8)
    tensors = {number: torch.frombuffer(bytearray(file), dtype=torch.uint8) for number, file in files.items()}
    assert decode_batch(tensors, PREPROCESS, pixels) == ()
    for number, file in files.items():
        assert plain_jpeg(file, PREPROCESS)
        expected = PREPROCESS(decode_image(file, number)).astype(int)
        assert np.abs(pixels[number].numpy() - expected).max() <= 3
    assert not pixels[[2, 4]].any()


def test_a_bad_file_does_not_affect_its_batch():
    files = [encoded((90, 70)), b"\xff\xd8\xff\xd9", encoded((90, 70), seed=1)]
    tensors = {n: torch.frombuffer(bytearray(file), dtype=torch.uint8) for n, file in enumerate(files)}
    pixels = torch.zeros((3, 64, 64, 3), dtype=torch.uint8)
    assert decode_batch(tensors, PREPROCESS, pixels) == (1,)
    assert pixels[0].any()
    assert pixels[2].any()


def test_out_of_gpu_memory_is_not_blamed_on_files(monkeypatch):
    def full(*_, **__):
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr("stages.images.gpu_jpeg.decode_jpeg", full)
    file = torch.frombuffer(bytearray(encoded((90, 70))), dtype=torch.uint8)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        decode_batch({0: file}, PREPROCESS, torch.zeros((1, 64, 64, 3), dtype=torch.uint8))


@pytest.mark.parametrize(
    ("file", "plain"),
    [
        (encoded((90, 70)), True),
        (encoded((90, 70), mode="L"), True),
        (encoded((90, 70), progressive=True), True),
        (encoded((90, 70)) + b"\0\0", True),
        (encoded((90, 70))[:-50], False),
        (encoded((90, 70), mode="CMYK"), False),
        (encoded((90, 70), keep_rgb=True), False),
        (turned((90, 70)), False),
        (encoded((400, 300)), False),
        (encoded((200, 20)), False),
        (b"no picture \xff\xd9", False),
        (b"", False),
    ],
)
def test_which_files_go_to_the_gpu(file, plain):
    assert plain_jpeg(file, PREPROCESS) is plain


def test_processes_and_threads_read_the_same(manifest, tmp_path, monkeypatch):
    """The only test with processes, since each imports all of torch first."""
    run(manifest, tmp_path / "threads.zarr")
    counts = []

    def by_processes(reader, batches, count):
        counts.append(count)
        return reading._by_processes(reader, batches, 1)

    monkeypatch.setattr(reading, "_by_threads", by_processes)
    run(manifest, tmp_path / "processes.zarr")
    assert counts == [2, 2]
    assert content(tmp_path / "threads.zarr") == content(tmp_path / "processes.zarr")
    assert reading._loader.cache_info().currsize == 0


def test_nvjpeg_features_are_close_to_pillow_features(manifest, tmp_path):
    """On a CPU torchvision's libjpeg stands in for nvJPEG."""
    config = replace(CONFIG, max_bad_fraction=0.1)
    plain = run(manifest, tmp_path / "pillow" / "database.zarr", config)
    other = run(manifest, tmp_path / "nvjpeg" / "database.zarr", replace(config, decoder="nvjpeg"))
    assert [(item.row, item.reason) for item in other.bad] == [(5, "truncated file")]
    assert [item.reason for item in plain.bad] == ["truncated file"]
    stores = [FeatureReader.open(tmp_path / name / "database.zarr") for name in ("pillow", "nvjpeg")]
    assert stores[1].recipe.differences(stores[0].recipe)
    ours, theirs = (store.read(0, ROWS, ["avg"])[store.valid].astype(float) for store in stores)
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert np.median(cosine) > 0.99  # pictures with nothing but sharp edges
    assert cosine.min() > 0.95


def test_pillow_decodes_files_that_the_gpu_cannot(manifest, monkeypatch):
    preprocess = preprocess_for(CONFIG.backbone, CONFIG.image_size)
    reader = ImageReader(manifest.path, preprocess, None, 0, nvjpeg=True)
    images = [ImageRow(row, location, -1) for row, location in enumerate(reader.source.locations(0, 3))]
    batch = reader.read(images)
    assert sorted(batch.spans) == [0, 1, 2]
    batch.jpegs[batch.spans[1]] = 0  # damaged in transit: neither decoder can read it
    monkeypatch.setattr(batches, "decode_batch", lambda files, preprocess, pixels: tuple(files))
    pixels = batches.pixels_on(torch.device("cpu"), batch, preprocess)
    assert batch.reasons == {1: "not an image of a known format"}
    expected = replace(reader, nvjpeg=False).read(images).pixels
    assert torch.equal(pixels[[0, 2]], expected[[0, 2]])
    assert not pixels[1].any()


def test_processes_need_permission_and_shared_memory(monkeypatch, tmp_path):
    assert reading._processes_fit(CONFIG, 1)
    assert not reading._processes_fit(CONFIG, 10**9)
    monkeypatch.setattr(reading, "_SHARED_MEMORY", tmp_path / "none")
    assert not reading._processes_fit(CONFIG, 1)


def test_the_number_of_readers():
    automatic = replace(CONFIG, readers="auto")
    assert reading.reader_count(automatic, gpu=False, share=0) == 2
    assert reading.reader_count(automatic, gpu=True, share=0) == len(os.sched_getaffinity(0))
    assert reading.reader_count(automatic, gpu=True, share=3) == 3
    assert reading.reader_count(replace(CONFIG, readers=5), gpu=True, share=3) == 5


def test_workers_take_devices_in_turn(manifest, tmp_path):
    devices = ["cuda:0", "cuda:3"]
    assert [device_of_worker(name, devices) for name in ("0", "1", "2")] == ["cuda:0", "cuda:3", "cuda:0"]
    assert device_of_worker("tcp://10.0.0.1:4000", devices) == "cuda:0"
    with pytest.raises(ConfigError, match="device 'warp' cannot be used"):
        run(manifest, tmp_path / "database.zarr", device="cpu,warp")


@pytest.fixture(autouse=True, scope="module")
def processes_ended():
    yield
    end_readers()
