"""Several sources in one manifest: names of the sets, keys, columns, duplicates."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from stages.errors import InputError
from stages.index.manifest import Manifest
from stages.index.manifest_writer import write_manifest
from stages.index.overlap import shared_images
from stages.index.sources.sets import SET, ImageSets
from stages.index.stage import IndexInputs, run
from tests.support.index_sources import SKIP, STOP, name


def folder(path, *stamps):
    path.mkdir(parents=True)
    for stamp in stamps:
        (path / name(stamp=stamp)).write_bytes(b"x" * int(stamp[-2:]))
    return path


def index(tmp_path, *sources, config=SKIP):
    output = tmp_path / "index" / "queries.parquet"
    result = run(IndexInputs(config, sources, output, "queries"))
    return result, Manifest.open(output)


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (("sf/test/queries_v1", "sf/test/queries_v2"), ("queries_v1", "queries_v2")),
        (("pitts30k/images/test/queries", "tokyo247/images/test/queries"), ("pitts30k", "tokyo247")),
        (("sf/test/q", "tokyo/test/q", "day.csv"), ("sf", "tokyo", "day")),
        (("a/b/q", "a/c/q", "d/c/q"), ("b", "/w/a/c/q", "d")),
        (("a/b", "b/a"), ("b", "a")),
    ],
)
def test_names_are_the_last_parts_that_differ(sources, names):
    assert ImageSets(tuple(Path("/w") / source for source in sources)).names == names


def test_a_set_at_the_end_keeps_keys_and_rows(tmp_path):
    v1, v2 = (
        folder(tmp_path / "q" / "v1", "201401", "201402"),
        folder(tmp_path / "q" / "v2", "201401", "201403"),
    )
    table = tmp_path / "q" / "night.csv"
    table.write_text("path,utm_east,utm_north,zone,light\nv3/a.jpg,543256,4178906,10S,night\n")
    _, alone = index(tmp_path, v1)
    keys, lengths = alone.keys(0, 9), alone.file_bytes()
    assert SET not in alone.column_names
    result, both = index(tmp_path, v1, v2, table)
    assert both.keys(0, 9) == [*keys, *(f"../v2/{path.name}" for path in sorted(v2.iterdir())), "../v3/a.jpg"]
    assert both.column(SET).tolist() == ["v1", "v1", "v2", "v2", "night"]
    assert both.column("light").tolist() == [""] * 4 + ["night"]
    assert both.file_bytes().tolist() == [*lengths, 1, 3, 0]
    assert result.sets == {"v1": 2, "v2": 2, "night": 1}
    assert ("set v1", 2) in result.facts()
    assert result.absent == (str(tmp_path / "q" / "v3" / "a.jpg"),)
    assert all(both.image_path(key).exists() for key in both.keys(0, 4))
    assert both.root == v1
    assert result.changes.images == 2
    assert result.changes.facts() == []


def test_images_are_found_beside_a_linked_folder(tmp_path):
    real, v2 = folder(tmp_path / "disk" / "deep" / "v1", "201401"), folder(tmp_path / "q" / "v2", "201402")
    (tmp_path / "q" / "v1").symlink_to(real)
    _, manifest = index(tmp_path, tmp_path / "q" / "v1", v2)
    assert all(manifest.image_path(key).exists() for key in manifest.keys(0, 2))
    count, _ = shared_images(index(tmp_path / "db", v2)[1], manifest)
    assert count == 1


def test_an_image_in_two_sets_counts_once(tmp_path):
    v1 = folder(tmp_path / "q" / "v1", "201401", "201402")
    paths = tmp_path / "all.txt"
    paths.write_text("".join(f"q/v1/{path.name}\n" for path in sorted(v1.iterdir())))
    result, manifest = index(tmp_path, v1, paths)
    assert result.skipped == {"key seen before": 2}
    assert manifest.column(SET).tolist() == ["v1", "v1"]


def test_faults_of_one_of_several_sources(tmp_path):
    v1 = folder(tmp_path / "v1", "201401")
    with pytest.raises(InputError, match=r"nowhere.csv does not exist"):
        index(tmp_path, v1, tmp_path / "nowhere.csv")
    bad = tmp_path / "list.txt"
    bad.write_text("bad.jpg\n")
    with pytest.raises(
        InputError, match=r"v1, .*list.txt has unusable entries: 1 no position \(\.\./bad.jpg\)"
    ):
        index(tmp_path, v1, bad, config=STOP)


def test_a_pack_cannot_be_one_of_several_sources(tmp_path):
    v1, v2 = folder(tmp_path / "v1", "201401"), folder(tmp_path / "v2", "201402")
    _, manifest = index(tmp_path / "packed", v2)
    rows = next(manifest.batches())
    packed = rows.append_column("pack_shard", pa.array(np.zeros(rows.num_rows, np.int32)))
    write_manifest(tmp_path / "pack.parquet", [packed], root=v2, zone="10S", source="names")
    with pytest.raises(InputError, match="one is a pack: name the images that the pack was made of"):
        index(tmp_path, v1, tmp_path / "pack.parquet")
    _, both = index(tmp_path, v1, manifest.path)
    assert both.image_path(both.keys(1, 2)[0]).parent == v2
