"""Packs: the same bytes as loose files, whole or not at all, faults recorded."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cache.reader import FeatureReader
from pipeline.cli import cli
from stages.errors import ConfigError, InputError
from stages.extract.config import ExtractConfig
from stages.extract.plan import RowSource
from stages.extract.stage import ExtractInputs
from stages.extract.stage import run as extract
from stages.images.read import UnreadableImage, read_image
from stages.index.config import IndexConfig
from stages.index.manifest import Manifest
from stages.index.manifest_writer import write_manifest
from stages.index.packs import writer as shards
from stages.index.packs.config import PackConfig
from stages.index.packs.reader import ImageSource, shard_path
from stages.index.packs.stage import PackInputs, run
from stages.index.stage import IndexInputs
from stages.index.stage import run as index

PLAIN = PackConfig(side=0, quality=90, images_per_shard=8)
SMALL = replace(PLAIN, side=40)
COUNT = 22


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def photos(tmp_path):
    """Twenty-two pictures of several kinds, three of them broken."""
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(COUNT):
        blocks = Image.fromarray(random.integers(0, 255, (5, 8, 3), dtype=np.uint8))
        side = 30 if number == 4 else 60
        picture = blocks.resize((side * 8 // 5, side), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 3 else 1
        picture.save(root / f"sub/{number:03d}.jpg", exif=exif, quality=92)
    Image.fromarray(random.integers(0, 255, (50, 70), dtype=np.uint8)).save(root / "sub/005.jpg", "PNG")
    whole = (root / "sub/009.jpg").read_bytes()
    (root / "sub/009.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "sub/010.jpg").write_bytes(b"")
    (root / "sub/021.jpg").unlink()
    return root


@pytest.fixture
def manifest(tmp_path, photos):
    batch = pa.record_batch(
        {
            "key": [f"sub/{number:03d}.jpg" for number in range(COUNT)],
            "utm_east": np.arange(COUNT, dtype=np.float64) + 500_000,
            "utm_north": np.full(COUNT, 4_000_000.0),
            "heading": pa.array(np.zeros(COUNT), pa.float32()),
            "timestamp": [""] * COUNT,
            "camera": ["a"] * COUNT,
        }
    )
    return write_manifest(
        tmp_path / "loose.parquet", [batch], root=photos, zone="10S", source="csv", skipped=lambda: 5
    )


def test_a_plain_pack_holds_unchanged_files(manifest, photos, tmp_path):
    seen = []
    result = run(
        PackInputs(PLAIN, manifest.path, tmp_path / "pack", workers=1),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (result.images, result.shards, result.made) == (COUNT, 3, 3)
    assert result.unreadable == (
        ("sub/009.jpg", "truncated file"),
        ("sub/010.jpg", "empty file"),
        ("sub/021.jpg", "no such file"),
    )
    assert seen == [(8, COUNT), (16, COUNT), (22, COUNT)]
    assert ("unreadable", 3) in result.facts()
    assert "sub/010.jpg,empty file" in (tmp_path / "pack/unreadable.csv").read_text()
    packed = Manifest.open(result.manifest)
    assert packed.skipped == 5
    assert (packed.rows, packed.zone, packed.source, packed.root) == (COUNT, "10S", "csv", tmp_path / "pack")
    assert packed.column("camera").tolist() == ["a"] * COUNT
    source = ImageSource(packed)
    for place in source.locations(0, COUNT):
        if place.key[4:7] in ("009", "010", "021"):
            continue
        assert source.content(place) == (photos / place.key).read_bytes()
    with h5py.File(tmp_path / "pack/00001.h5") as file:
        assert file["key"].asstr()[2] == "sub/010.jpg"
        begin, end = file["offsets"][3:5]
        assert bytes(file["images"][begin:end]) == (photos / "sub/011.jpg").read_bytes()


def test_reasons_are_those_of_loose_files(manifest, tmp_path):
    packed = Manifest.open(run(PackInputs(PLAIN, manifest.path, tmp_path / "p", workers=1)).manifest)
    for number in (9, 10, 21):
        reasons = []
        for source in (ImageSource(manifest), ImageSource(packed)):
            with pytest.raises(UnreadableImage) as caught:
                source.read(source.locations(number, number + 1)[0])
            reasons.append(caught.value.reason)
        assert reasons[0] == reasons[1]


def test_reduced_images_are_upright_jpegs_and_small_ones_stay(manifest, photos, tmp_path):
    result = run(PackInputs(SMALL, manifest.path, tmp_path / "pack", workers=1))
    source = ImageSource(Manifest.open(result.manifest))
    places = source.locations(0, COUNT)
    for number, size in ((0, (64, 40)), (3, (40, 64)), (5, (56, 40))):
        picture = Image.open(io.BytesIO(source.content(places[number])))
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", size)
    assert source.content(places[4]) == (photos / places[4].key).read_bytes()
    loose = read_image(photos / places[3].key).resize((40, 64))
    difference = np.asarray(source.read(places[3]), float) - np.asarray(loose, float)
    assert np.abs(difference).mean() < 8


def test_processes_make_the_same_pack(manifest, tmp_path):
    run(PackInputs(PLAIN, manifest.path, tmp_path / "one", workers=1))
    run(PackInputs(PLAIN, manifest.path, tmp_path / "two", workers=2))
    assert content(tmp_path / "one") == content(tmp_path / "two")


KILLED = """
import os, signal, sys
from pathlib import Path
from stages.index.packs import writer as shards
from stages.index.packs.config import PackConfig
from stages.index.packs.stage import PackInputs, run
encode = shards.encode
def deadly(data, path, config):
    if "012" in path.name:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(data, path, config)
shards.encode = deadly
config = PackConfig(side=0, quality=90, images_per_shard=8)
run(PackInputs(config, Path(sys.argv[1]), Path(sys.argv[2]), workers=1))
"""


def test_a_killed_run_is_continued(manifest, tmp_path, monkeypatch):
    command = [sys.executable, "-c", KILLED, str(manifest.path), str(tmp_path / "pack")]
    done = subprocess.run(command, cwd=Path(__file__).parents[4], check=False)
    assert done.returncode == -signal.SIGKILL
    assert sorted(p.name for p in (tmp_path / "pack").iterdir()) == ["00000.h5"]
    assert run(PackInputs(PLAIN, manifest.path, tmp_path / "pack", workers=1)).made == 2
    run(PackInputs(PLAIN, manifest.path, tmp_path / "undisturbed", workers=1))
    assert content(tmp_path / "pack") == content(tmp_path / "undisturbed")
    monkeypatch.setattr(shards, "encode", None)
    again = run(PackInputs(PLAIN, manifest.path, tmp_path / "pack", workers=1))
    assert (again.made, len(again.unreadable)) == (0, 3)


def test_damaged_or_outdated_shards_are_made_again(manifest, tmp_path):
    run(PackInputs(PLAIN, manifest.path, tmp_path / "pack", workers=1))
    torn = shard_path(tmp_path / "pack", 1)
    torn.write_bytes(torn.read_bytes()[:3000])
    assert run(PackInputs(PLAIN, manifest.path, tmp_path / "pack", workers=1)).made == 1
    assert run(PackInputs(SMALL, manifest.path, tmp_path / "pack", workers=1)).made == 3
    with pytest.raises(InputError, match="the manifest of this very pack"):
        run(PackInputs(PLAIN, tmp_path / "pack/manifest.parquet", tmp_path / "pack", workers=1))


def test_settings_out_of_range_are_named():
    for name, value in {"side": -1, "quality": 0, "images_per_shard": 0}.items():
        with pytest.raises(ConfigError, match=f"pack.{name} is {value}"):
            replace(PLAIN, **{name: value})


def test_a_pack_remade_for_other_images_is_detected(manifest, tmp_path):
    packed = run(PackInputs(PLAIN, manifest.path, tmp_path / "p", workers=1))
    stale = Manifest.open(packed.manifest)
    (place,) = ImageSource(stale).locations(0, 1)
    shorter = write_manifest(
        tmp_path / "short.parquet",
        [next(manifest.batches()).slice(1)],
        root=manifest.root,
        zone="10S",
        source="csv",
    )
    run(PackInputs(PLAIN, shorter.path, tmp_path / "p", workers=1))
    with pytest.raises(InputError, match="run `pipeline index` again"):
        ImageSource(stale).read(place)
    shutil.rmtree(tmp_path / "p")
    with pytest.raises(InputError, match="does not exist: run `pipeline pack`"):
        ImageSource(stale).read(place)


def test_threads_share_a_source(manifest, photos, tmp_path):
    packed = run(PackInputs(replace(PLAIN, images_per_shard=1), manifest.path, tmp_path / "p", workers=1))
    source = ImageSource(Manifest.open(packed.manifest))
    places = [place for place in source.locations(0, 21) if place.key[4:7] not in ("009", "010")] * 20
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(source.content, places))
    assert contents == [(photos / place.key).read_bytes() for place in places]


def test_features_from_a_pack_equal_those_from_loose_files(manifest, tmp_path):
    config = ExtractConfig(
        backbone="efficientnet_lite0",
        weights="pretrained",
        image_size=32,
        outputs=("avg",),
        layers="last",
        cut="none",
        dtype="float16",
        precision="float32",
        compile=False,
        shards=1,
        batch_size=8,
        readers=2,
        decoder="pillow",
        decode="exact",
        threads=1,
        max_bad_fraction=0.5,
    )
    pack = run(PackInputs(PLAIN, manifest.path, tmp_path / "pack", workers=1))
    indexed = tmp_path / "index" / "database.parquet"
    result = index(IndexInputs(IndexConfig(on_error="skip"), (pack.manifest,), indexed, "database"))
    assert (result.rows, result.zone, result.skipped) == (COUNT, "10S", {})
    stores = []
    for name, path in (("loose", manifest.path), ("packed", indexed)):
        stores.append(tmp_path / name / "database.zarr")
        source = RowSource(Manifest.open(path))
        extract(ExtractInputs(config, source, stores[-1], shards=[0], device="cpu"))
    assert content(stores[0]) == content(stores[1])
    assert np.flatnonzero(~FeatureReader.open(stores[1]).valid).tolist() == [9, 10, 21]


def test_the_command_packs_a_folder(photos, tmp_path):
    from click.testing import CliRunner

    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(Path(__file__).parents[4] / "params.yaml", project / "params.yaml")
    lines = "".join(f"sub/{n:03d}.jpg,{500000 + n},4000000,10S\n" for n in range(4))
    (photos / "list.csv").write_text("path,utm_east,utm_north,zone\n" + lines)
    command = ["--project", str(project), "pack", str(photos / "list.csv"), str(tmp_path / "pack")]
    done = CliRunner().invoke(cli, [*command, "--workers", "1"], catch_exceptions=False)
    assert done.exit_code == 0
    assert sorted(p.name for p in (tmp_path / "pack").iterdir()) == [
        "00000.h5",
        "manifest.parquet",
        "skipped.csv",
        "unreadable.csv",
    ]
