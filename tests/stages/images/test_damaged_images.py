"""Damaged and foreign files: a reason for each, never another error, another program or a wait."""

from __future__ import annotations

import io
import os
import random
import socket

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin

from stages.images.formats import SUFFIXES
from stages.images.read import UnreadableImage, decode_image, read_content, read_image
from stages.index.exif import Photo, read_exif
from stages.index.skipped import SkipReason

FUZZED = int(os.environ.get("PLACECACHE_FUZZ", "10000"))
"""Damaged inputs per test; set PLACECACHE_FUZZ to try more."""


def encoded(kind, size=(9, 7), **options):
    noise = np.random.default_rng(1).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind, **options)
    return buffer.getvalue()


def gps_photo(kind="JPEG"):
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (37.0, 46.0, 12.5), 3: "W", 4: (122.0, 25.0, 9.9)})
    exif.get_ifd(ExifTags.IFD.Exif)[0x9003] = "2025:12:22 09:47:11"
    exif[ExifTags.Base.Orientation] = 6
    return encoded(kind, exif=exif)


def samples():
    kinds = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000")
    files = [encoded(kind) for kind in kinds] + [gps_photo(), gps_photo("PNG"), gps_photo("TIFF")]
    files += [encoded("JPEG", progressive=True), encoded("TIFF", compression="tiff_lzw")]
    return files


def damaged(content, chance):
    """One file with a few bytes changed, cut out, repeated or cut off."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(data)) if data else 0
        match chance.randrange(6):
            case 0 | 1 | 2:
                data[at : at + 1] = bytes([chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))])
            case 3:
                del data[at : at + chance.randrange(1, 9)]
            case 4:
                data[at:at] = data[at : at + chance.randrange(1, 17)]
            case 5:
                data = data[: max(at, 1)]
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
def test_fuzzed_images_are_read_or_unreadable(tmp_path):
    chance, files, read, reasons = random.Random(0), samples(), 0, set()
    path = tmp_path / "photo.jpg"
    for number in range(FUZZED):
        content = damaged(files[number % len(files)], chance)
        try:
            image = decode_image(content, path, decode_at_least=chance.choice((None, 1)))
        except UnreadableImage as error:
            reasons.add(error.reason)
        else:
            assert image.mode == "RGB"
            read += 1
    assert FUZZED // 10 < read < FUZZED
    assert all(reason and reason.isprintable() for reason in reasons)


@pytest.mark.filterwarnings("ignore")
def test_fuzzed_exif_states_a_position_or_a_reason(tmp_path):
    chance, path, positions = random.Random(1), tmp_path / "photo.jpg", 0
    files = [gps_photo(), gps_photo("PNG"), gps_photo("TIFF"), gps_photo("WEBP")]
    for number in range(FUZZED):
        content = files[number % len(files)]
        start = max(content.find(marker) for marker in (b"Exif", b"eXIf", b"EXIF", b"II*", b"MM"))
        head, exif = content[:start], content[start:]
        path.write_bytes(head + damaged(exif[:400], chance) + exif[400:])
        photo = read_exif(path)
        positions += isinstance(photo, Photo)
        assert isinstance(photo, Photo | SkipReason)
    assert FUZZED // 10 < positions < FUZZED


@pytest.mark.parametrize(
    "error", [RuntimeError, NotImplementedError, AttributeError, MemoryError, LookupError, RecursionError]
)
def test_any_error_of_a_decoder_is_a_reason(tmp_path, monkeypatch, error):
    def fail(self, *_):
        raise error("decoder\x1b failed")

    (tmp_path / "a.jpg").write_bytes(encoded("JPEG"))
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(UnreadableImage, match="decoder\ufffd failed"):
        read_image(tmp_path / "a.jpg")
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "_open", fail)
    with pytest.raises(UnreadableImage):
        read_image(tmp_path / "a.jpg")
    assert read_exif(tmp_path / "a.jpg") == SkipReason.UNREADABLE


@pytest.mark.parametrize("kind", ["DDS", "EPS", "ICO", "PCX", "PPM", "SGI", "TGA"])
def test_other_formats_are_not_opened(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    (tmp_path / "gs").chmod(0o755)
    (tmp_path / "a.jpg").write_bytes(encoded(kind))
    with pytest.raises(UnreadableImage, match="not an image of a known format"):
        read_image(tmp_path / "a.jpg")
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "MPO", "JPEG2000", "AVIF"])
def test_known_formats_are_read(tmp_path, kind):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow has no {kind}")
    (tmp_path / "a.jpg").write_bytes(encoded(kind, size=(16, 16)))
    assert read_image(tmp_path / "a.jpg").size == (16, 16)
    assert {".jpg", ".png", ".webp", ".tif", ".bmp", ".gif", ".mpo", ".jp2", ".avif"} <= set(SUFFIXES)


def special_files(folder):
    """Files that are none, and a word of the reason for each."""
    os.mkfifo(folder / "fifo.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "broken.jpg").symlink_to(folder / "nowhere")
    (folder / "device.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(os.path.relpath(folder / "socket.jpg"))
    words = ("a FIFO", "a directory", "levels of symbolic links", "no such file", "a device", "a socket")
    return dict(zip(("fifo", "folder", "loop", "broken", "device", "socket"), words, strict=True))


@pytest.mark.parametrize("read", [read_image, read_content])
def test_special_files_have_a_reason(tmp_path, monkeypatch, read):
    monkeypatch.chdir(tmp_path)
    for name, reason in special_files(tmp_path).items():
        with pytest.raises(UnreadableImage, match=f"(?i){reason}"):
            read(tmp_path / f"{name}.jpg")
        assert read_exif(tmp_path / f"{name}.jpg") == SkipReason.UNREADABLE
