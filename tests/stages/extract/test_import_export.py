"""Export features to other programs, and import features of other programs."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from cache.errors import RecipeMismatch, StoreError
from cache.reader import FeatureReader
from cache.recipe import Recipe
from cache.row_identity import RowIdentities, row_ids
from cache.spec import StoreSpec
from cache.store import create_or_open
from cache.writer import ChunkWriter
from stages.errors import InputError
from stages.extract.feature_files import feature_file
from stages.extract.import_export import export_folder, export_hdf5, export_npy, import_features
from stages.extract.imported_features import check, recipe_of
from stages.index.manifest_writer import write_manifest
from tests.support.features_to_import import KEYS, ROWS, manifest_of


@pytest.fixture
def manifest(tmp_path):
    return manifest_of(tmp_path / "database.parquet")


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(ROWS, 7)).astype(np.float16)


@pytest.fixture
def reader(tmp_path, features):
    """A finished store of two outputs and tokens at a cut; row 5 is bad."""
    outputs = {"cls": 4, "avg": 3, "cut2": 5}
    spec = StoreSpec.for_rows(ROWS, outputs, "float16")
    recipe = Recipe("tiny", "random", "ab" * 32, 28, {}, outputs, "float16", "float32")
    store = create_or_open(tmp_path / "database.zarr", spec, recipe, RowIdentities.of(row_ids(KEYS)))
    for chunk in range(spec.chunks):
        rows = spec.chunk_slice(chunk)
        tensor = np.zeros((rows.stop - rows.start, 5), np.float16)
        arrays = {"cls": features[rows, :4], "avg": features[rows, 4:], "cut2": tensor}
        ChunkWriter(store).write(chunk, arrays, {5: "truncated"} if chunk == 0 else {})
    return FeatureReader(store)


def import_from(path, manifest, store, *, name="mine", replace=False):
    """Import a file; the result, the store's reader and the report of the check."""
    with feature_file(path, manifest) as file:
        report = check(file, manifest, absent_share=0.05)
        moved = import_features(file, manifest, store, recipe=recipe_of(file, name), replace=replace)
    return moved, FeatureReader.open(store), report


def test_hdf5_has_a_group_per_image(reader, manifest, features, tmp_path):
    result = export_hdf5(reader, manifest, tmp_path / "out/features.h5")
    assert (result.rows, result.skipped, result.length) == (ROWS - 1, 1, 7)
    with h5py.File(result.path) as file:
        assert sorted(file["street"]) == [key[7:] for key in KEYS if key != KEYS[5]]
        np.testing.assert_array_equal(file[KEYS[70]]["global_descriptor"][:], features[70])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["features.h5"]


def test_npy_is_exported_and_imported(reader, manifest, features, tmp_path):
    result = export_npy(reader, manifest, tmp_path / "features.npy")
    array = np.load(result.path)
    np.testing.assert_array_equal(np.delete(array, 5, 0), np.delete(features, 5, 0))
    assert np.isnan(array[5]).all()
    lines = (tmp_path / "features.csv").read_text().splitlines()
    assert lines[:2] == ["path,utm_east,utm_north,zone", "street/000.jpg,500000.125,4000000.0,10S"]
    moved, back, report = import_from(result.path, manifest, tmp_path / "new.zarr")
    assert (moved.rows, moved.skipped, moved.length) == (ROWS - 1, 1, 7)
    back.require_complete()
    np.testing.assert_array_equal(back.read(0, ROWS), array)
    assert (back.recipe.backbone, back.recipe.weights, back.recipe.dtype) == ("imported", "mine", "float16")
    bad = [(bad.row, bad.key, bad.reason) for bad in back.store.ledger.bad_rows()]
    assert bad == [(5, KEYS[5], "NaN in the imported file")]
    assert report.facts() == [("NaN in the imported file", f"1 (first: row 5, {KEYS[5]})")]


@pytest.mark.parametrize(("export", "name"), [(export_hdf5, "out.h5"), (export_folder, "out")])
def test_files_by_key_come_back(export, name, reader, manifest, features, tmp_path):
    result = export(reader, manifest, tmp_path / name)
    assert (result.rows, result.skipped) == (ROWS - 1, 1)
    _, back, _ = import_from(result.path, manifest, tmp_path / "new.zarr")
    np.testing.assert_array_equal(np.delete(back.read(0, ROWS), 5, 0), np.delete(features, 5, 0))
    assert [(bad.row, bad.reason) for bad in back.store.ledger.bad_rows()] == [
        (5, "no feature in the imported file")
    ]


def test_an_exported_folder_is_never_overwritten(reader, manifest, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="out exists: delete it"):
        export_folder(reader, manifest, tmp_path / "out")
    leftover = tmp_path / ".new.partial/other.npy"
    leftover.parent.mkdir()
    leftover.touch()
    export_folder(reader, manifest, tmp_path / "new")
    assert not (tmp_path / "new/other.npy").exists()


def test_one_name_stands_for_one_recipe(manifest, tmp_path):
    np.save(tmp_path / "a.npy", np.ones((ROWS, 3), np.float64))
    np.save(tmp_path / "b.npy", np.full((ROWS, 3), 2, np.float64))
    store = tmp_path / "database.zarr"
    assert import_from(tmp_path / "a.npy", manifest, store)[1].recipe.dtype == "float32"
    assert (import_from(tmp_path / "b.npy", manifest, store)[1].read(0, ROWS) == 2).all()
    with pytest.raises(RecipeMismatch, match="made by"):
        import_from(tmp_path / "a.npy", manifest, store, name="other")
    back = import_from(tmp_path / "a.npy", manifest, store, name="other", replace=True)[1]
    assert (back.read(0, ROWS) == 1).all()


def test_a_killed_import_leaves_an_incomplete_store(manifest, tmp_path):
    np.save(tmp_path / "a.npy", np.ones((ROWS, 3), np.float32))
    np.save(tmp_path / "b.npy", np.full((ROWS, 3), 2, np.float32))
    store = tmp_path / "database.zarr"
    import_from(tmp_path / "a.npy", manifest, store)

    def kill(done, total):
        raise KeyboardInterrupt

    with feature_file(tmp_path / "b.npy", manifest) as file:
        recipe = recipe_of(file, "mine")
        with pytest.raises(KeyboardInterrupt):
            import_features(file, manifest, store, recipe=recipe, replace=False, progress=kill)
    with pytest.raises(StoreError, match="lacks"):
        FeatureReader.open(store).require_complete()
    assert (import_from(tmp_path / "b.npy", manifest, store)[1].read(0, ROWS) == 2).all()


def test_bad_rows_have_their_own_reasons(manifest, tmp_path):
    array = np.ones((ROWS, 3), np.float64)
    array[3, 1], array[4, 0], array[5, 2], array[17, 1] = np.nan, np.inf, 1e39, -70_000
    np.save(tmp_path / "wide.npy", array)
    _, back, report = import_from(tmp_path / "wide.npy", manifest, tmp_path / "new.zarr")
    assert [(bad.row, bad.reason) for bad in back.store.ledger.bad_rows()] == [
        (3, "NaN in the imported file"),
        (4, "infinite in the imported file"),
        (5, "above the largest float32 value in the imported file"),
    ]
    assert back.read(17, 18)[0, 1] == -70_000
    large = "stored, but above 65,504, the largest float16 value"
    assert dict(report.facts())[large] == f"1 (first: row 17, {KEYS[17]}: 70,000)"


def test_half_floats_that_overflowed_are_named(manifest, tmp_path):
    array = np.ones((ROWS, 3), np.float16)
    array[17, 1] = np.inf
    np.save(tmp_path / "half.npy", array)
    _, back, report = import_from(tmp_path / "half.npy", manifest, tmp_path / "new.zarr")
    ((reason, words),) = report.facts()
    assert "probably above 65,504, the largest float16 value; save it as float32" in reason
    assert words == f"1 (first: row 17, {KEYS[17]})"
    assert [(bad.row, bad.reason) for bad in back.store.ledger.bad_rows()] == [(17, reason)]


def test_features_without_a_valid_row_are_rejected(manifest, tmp_path):
    np.save(tmp_path / "nan.npy", np.full((ROWS, 3), np.nan, np.float32))
    with pytest.raises(InputError, match=rf"no valid feature: NaN .* {ROWS} .*nothing was imported"):
        import_from(tmp_path / "nan.npy", manifest, tmp_path / "new.zarr")
    assert not (tmp_path / "new.zarr").exists()


def test_exports_need_the_right_and_complete_store(reader, manifest, tmp_path):
    shorter = write_manifest(
        tmp_path / "short.parquet", [next(manifest.batches()).slice(1)], root=tmp_path, zone="", source="csv"
    )
    with pytest.raises(InputError, match="made for other images"):
        export_npy(reader, shorter, tmp_path / "out.npy")
    reader.store.ledger.reopen(0)
    with pytest.raises(StoreError, match="run `pipeline extract"):
        export_hdf5(reader, manifest, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()
