"""Ten thousand damaged forms of a pack's shard: an error or the right images, nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stages.errors import InputError
from stages.images.read import UnreadableImage
from stages.index.packs.config import PackConfig
from stages.index.packs.reader import DAMAGED, ImageLocation, ImageSource, Shard
from stages.index.packs.writer import pack_shard
from tests.support.fuzz import ROUNDS, damaged
from tests.support.tiny_photos import draw, listed

KEYS = ["a.jpg", "b/é.jpg", "letter.jpg", "d.jpg"]


def contents(path: Path) -> list[bytes | str] | None:
    """Content of each image, or why it cannot be read; None for a rejected shard."""
    try:
        shard, images = Shard(path), []
        for slot, key in enumerate(KEYS):
            try:
                images.append(shard.content(ImageLocation(key, 0, slot), path))
            except UnreadableImage as error:
                images.append(error.reason)
    except InputError:
        return None
    return images


def fuzz(shard: Path) -> None:
    right, content, rejected, images_changed = contents(shard), shard.read_bytes(), 0, 0
    assert right is not None
    for form in damaged(content, seed=5):
        shard.write_bytes(form)
        images = contents(shard)
        if images is None:
            rejected += 1
            continue
        for image, original in zip(images, right, strict=True):
            if image != original:
                assert image == DAMAGED or str(image).endswith("ends before it"), image
                images_changed += 1
    assert rejected > ROUNDS / 20
    assert images_changed > 0


def test_damaged_shards(tmp_path):
    for number, key in enumerate(KEYS):
        draw(tmp_path / "photos" / key, number)
    (tmp_path / "photos" / "letter.jpg").write_text("no photo")
    listed(tmp_path / "all.parquet", tmp_path / "photos", KEYS)
    config = PackConfig(side=0, quality=90, images_per_shard=4)
    pack_shard(config, tmp_path / "all.parquet", tmp_path, 0)
    # In a process of its own: HDF5 is a C library, and a damaged file must not end the test run.
    command = (
        f"from pathlib import Path; import {__name__} as t; t.fuzz(Path({str(tmp_path / '00000.h5')!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=Path(__file__).parents[4],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_flipped_bit_in_an_image_is_a_reason(tmp_path):
    draw(tmp_path / "photos" / "a.jpg", 1)
    manifest = listed(tmp_path / "all.parquet", tmp_path / "photos", ["a.jpg"])
    pack_shard(PackConfig(side=0, quality=90, images_per_shard=4), tmp_path / "all.parquet", tmp_path, 0)
    shard, photo = tmp_path / "00000.h5", (tmp_path / "photos" / "a.jpg").read_bytes()
    content = np.frombuffer(shard.read_bytes(), np.uint8).copy()
    content[shard.read_bytes().index(photo) + len(photo) // 2] ^= 4
    shard.write_bytes(content.tobytes())
    source = ImageSource(manifest)
    source._shards[0] = Shard(shard)
    with pytest.raises(UnreadableImage, match=DAMAGED):
        source.content(ImageLocation("a.jpg", 0, 0))
