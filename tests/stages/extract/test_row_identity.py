"""A store belongs to a list of images: which lists fit, what is compared, and what is noted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cache.recipe import Recipe
from cache.row_identity import IdentityArrays, RowIdentities, row_ids
from cache.spec import StoreSpec
from cache.storage.paths import storage_path
from cache.store import create_or_open, open_store
from stages.errors import InputError
from stages.eval.stage import EvalInputs
from stages.eval.stage import run as evaluate
from stages.extract.row_identity import has_rows, require_same_rows, row_identities
from stages.index.config import IndexConfig
from stages.index.manifest import Manifest
from stages.index.manifest_writer import write_manifest
from stages.index.stage import IndexInputs
from stages.index.stage import run as run_index
from stages.partition.views import ViewPlan
from tests.support.tiny_photos import draw
from tests.support.tiny_photos import run as extract
from tests.support.training_city import CONFIG, CONFIG_EVAL, build_city

KEYS = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
PLAIN = Recipe("toy", "random", "0" * 64, 56, {"resize": 64}, {"avg": 4}, "float16", "float32")


def listed(path, keys, lengths=None, east=0.0):
    columns = {
        "key": pa.array(keys),
        "utm_east": np.full(len(keys), east),
        "utm_north": np.zeros(len(keys)),
        "heading": np.zeros(len(keys), np.float32),
        "timestamp": pa.array([""] * len(keys)),
    }
    if lengths is not None:
        columns["file_bytes"] = np.array(lengths, np.int64)
    return write_manifest(path, [pa.record_batch(columns)], root=Path("/x"), zone="", source="csv")


def store_for(path, identities, rows=4):
    return create_or_open(path, StoreSpec(rows, {"avg": 4}, "float16", 64), PLAIN, identities)


def forget_digest(path):
    """Make a store look like one of an earlier version."""
    file = path / "row_id" / "zarr.json"
    values = json.loads(file.read_text())
    values["attributes"] = {}
    file.write_text(json.dumps(values))


def no_names():
    raise AssertionError("the names were read, although the digests are equal")


def resort(path):
    """Write the manifest again, with its rows in another order."""
    manifest = Manifest.open(path)
    (rows,) = manifest.batches()
    write_manifest(
        path,
        [rows.take(pa.array(np.arange(manifest.rows)[::-1]))],
        root=Path("/nowhere"),
        zone="10S",
        source="csv",
    )


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    built = build_city(tmp_path_factory.mktemp("identity") / "city", side=4, images=60)
    built.train(CONFIG)
    return built


@pytest.fixture
def resorted(city, tmp_path):
    """The city, with a function that gives one of its manifests another order for the test."""
    saved = {}

    def change(name):
        path = city.folder / name
        saved[path] = path.read_bytes()
        resort(path)

    yield change
    for path, content in saved.items():
        path.write_bytes(content)


def test_training_stops_at_features_of_other_images(city, resorted):
    before = (city.folder / "localiser" / "localiser.safetensors").read_bytes()
    resorted("database.parquet")
    with pytest.raises(InputError, match=r"database\.zarr was made for other images than .*run `pipeline"):
        city.train(CONFIG)
    assert (city.folder / "localiser" / "localiser.safetensors").read_bytes() == before


def test_training_stops_at_views_of_other_images(city, tmp_path):
    counts = np.bincount(city.plan.row, minlength=len(city.labels))
    (tmp_path / "partition").mkdir()
    for name in ("classes.parquet", "labels.npy"):
        (tmp_path / "partition" / name).write_bytes((city.folder / "partition" / name).read_bytes())
    other = ViewPlan.of_counts(np.roll(counts, 1))
    assert len(other) == len(city.plan)
    other.save(tmp_path / "partition" / "views.parquet")
    with pytest.raises(InputError, match=r"views\.zarr was made for other images than the view plan"):
        city.train(CONFIG, partition=tmp_path / "partition")


@pytest.mark.parametrize("name", ["queries", "database"])
def test_evaluation_stops_at_features_of_other_images(city, resorted, name):
    outputs = city.outputs() | {
        "database": city.folder / "database.zarr",
        "database_manifest": city.folder / "database.parquet",
    }
    evaluate(EvalInputs(CONFIG_EVAL, **outputs))
    before = (city.folder / "metrics.json").read_bytes()
    resorted(f"{name}.parquet")
    with pytest.raises(InputError, match=rf"{name}\.zarr was made for other images"):
        evaluate(EvalInputs(CONFIG_EVAL, **outputs))
    assert (city.folder / "metrics.json").read_bytes() == before


def test_equal_digests_need_no_names(tmp_path):
    manifest = listed(tmp_path / "m.parquet", KEYS)
    store = store_for(tmp_path / "s.zarr", row_identities(manifest))
    assert store.is_for(RowIdentities(manifest.row_digest, no_names))
    assert (
        store_for(tmp_path / "s.zarr", RowIdentities(manifest.row_digest, no_names)).identity
        == store.identity
    )
    plan = ViewPlan.of_counts(np.array([0, 2, 1, 0]))
    views = store_for(tmp_path / "v.zarr", row_identities(manifest, plan), rows=3)
    assert views.is_for(RowIdentities(plan.row_digest(manifest.row_digest), no_names))


def test_the_digest_depends_on_keys_order_and_lengths_only(tmp_path):
    def digest(*arguments, **options):
        return listed(tmp_path / "m.parquet", *arguments, **options).row_digest

    one = digest(KEYS)
    assert digest(KEYS, east=9.0) == one  # a corrected position needs no other features
    assert digest([*KEYS[:2], "d.jpg", "c.jpg"]) != one
    assert digest([*KEYS[:3], "e.jpg"]) != one
    assert digest(KEYS, [1, 2, 3, 4]) != digest(KEYS, [1, 2, 3, 5])


def test_manifests_without_a_digest_get_the_same_one(tmp_path, monkeypatch):
    expected = listed(tmp_path / "m.parquet", KEYS).row_digest
    monkeypatch.setattr("stages.index.hashing.ManifestDigest.row_digest", lambda self: "")
    assert listed(tmp_path / "old.parquet", KEYS).row_digest == expected


def test_stores_of_earlier_versions_fit_and_are_noted(tmp_path):
    manifest = listed(tmp_path / "m.parquet", KEYS, [5, 6, 7, 8])
    path = tmp_path / "s.zarr"
    store = store_for(path, RowIdentities.of(row_ids(KEYS)))
    forget_digest(path)
    require_same_rows(open_store(path), manifest)
    assert open_store(path).made_for == ""  # a reader changes nothing
    again = store_for(path, row_identities(manifest))
    assert (again.identity, again.made_for) == (store.identity, manifest.row_digest)
    assert again.file_bytes().tolist() == [5, 6, 7, 8]
    assert not has_rows(again, listed(tmp_path / "m.parquet", [*KEYS[:3], "e.jpg"]))


def test_a_file_of_another_length_is_another_image(tmp_path):
    path = tmp_path / "s.zarr"
    store = store_for(path, row_identities(listed(tmp_path / "m.parquet", KEYS, [5, 6, 7, 8])))
    assert not has_rows(store, listed(tmp_path / "other.parquet", KEYS, [5, 6, 7, 9]))
    assert has_rows(store, listed(tmp_path / "unknown.parquet", KEYS))
    assert has_rows(store, listed(tmp_path / "part.parquet", KEYS, [5, 0, 7, 8]))
    views = ViewPlan.of_counts(np.array([0, 2, 0, 1]))
    arrays = row_identities(listed(tmp_path / "m.parquet", KEYS, [5, 6, 7, 8]), views).arrays
    assert isinstance(arrays, IdentityArrays)
    assert arrays.ids.tolist() == row_ids(["b.jpg#0", "b.jpg#1", "d.jpg#0"]).tolist()
    assert arrays.file_bytes.tolist() == [6, 6, 8]


def test_only_a_replaced_file_is_extracted_again(tmp_path):
    rows = [f"{key},{500_000 + row},4000000,10S" for row, key in enumerate(KEYS)]
    lines = ["path,utm_east,utm_north,zone", *rows]
    for number, key in enumerate(KEYS):
        draw(tmp_path / key, number)
    (tmp_path / "list.csv").write_text("\n".join(lines))

    def extracted():
        path = tmp_path / "index" / "database.parquet"
        run_index(IndexInputs(IndexConfig("skip"), (tmp_path / "list.csv",), path, "database"))
        result = extract(Manifest.open(path), storage_path(tmp_path / "database.zarr"))
        return result.computed, result.reused

    assert extracted() == (4, 0)
    assert extracted() == (0, 0)
    (tmp_path / "b.jpg").touch()
    assert extracted() == (0, 0)
    draw(tmp_path / "b.jpg", 99)
    with (tmp_path / "b.jpg").open("ab") as file:
        file.write(b"another length")
    assert extracted() == (1, 3)
