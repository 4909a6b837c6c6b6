"""Features exported to other programs and imported from them."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from cache.errors import RecipeMismatch, StoreError
from cache.reader import FeatureReader
from cache.recipe import Recipe
from cache.row_identity import RowIdentities, row_ids
from cache.spec import StoreSpec
from cache.store import create_or_open
from cache.writer import ChunkWriter
from pipeline.cli import cli
from pipeline.project.params import load_params
from pipeline.project.paths import Paths
from stages.errors import InputError
from stages.extract.import_export import export_hdf5, export_npy, import_npy
from stages.index.manifest import write_manifest

ROWS = 100
KEYS = [f"street/{row:03d}.jpg" for row in range(ROWS)]


@pytest.fixture
def manifest(tmp_path):
    batch = pa.record_batch(
        {
            "key": KEYS,
            "utm_east": np.arange(ROWS) * 10.0 + 500_000.125,
            "utm_north": np.full(ROWS, 4_000_000.0),
            "heading": pa.array(np.zeros(ROWS), pa.float32()),
            "timestamp": [""] * ROWS,
        }
    )
    return write_manifest(tmp_path / "database.parquet", [batch], root=tmp_path, zone="10S", source="csv")


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(ROWS, 7)).astype(np.float16)


@pytest.fixture
def reader(tmp_path, features):
    """A finished store of two outputs and tokens for trainable blocks; row 5 is bad."""
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


def test_hdf5_has_a_group_per_image(reader, manifest, features, tmp_path):
    result = export_hdf5(reader, manifest, tmp_path / "out/features.h5")
    assert (result.rows, result.skipped, result.length) == (ROWS - 1, 1, 7)
    with h5py.File(result.path) as file:
        assert sorted(file["street"]) == [key[7:] for key in KEYS if key != KEYS[5]]
        np.testing.assert_array_equal(file[KEYS[70]]["global_descriptor"][:], features[70])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["features.h5"]


def test_npy_export_and_import_are_inverse(reader, manifest, features, tmp_path):
    result = export_npy(reader, manifest, tmp_path / "features.npy")
    array = np.load(result.path)
    np.testing.assert_array_equal(np.delete(array, 5, 0), np.delete(features, 5, 0))
    assert np.isnan(array[5]).all()
    lines = (tmp_path / "features.csv").read_text().splitlines()
    assert lines[:2] == ["path,utm_east,utm_north,zone", "street/000.jpg,500000.125,4000000.0,10S"]
    moved = import_npy(result.path, manifest, tmp_path / "new.zarr", name="mine", replace=False)
    assert (moved.rows, moved.skipped, moved.length) == (ROWS - 1, 1, 7)
    back = FeatureReader.open(tmp_path / "new.zarr")
    back.require_complete()
    np.testing.assert_array_equal(back.read(0, ROWS), array)
    assert (back.recipe.backbone, back.recipe.weights, back.recipe.dtype) == ("imported", "mine", "float16")
    assert [(bad.row, bad.key) for bad in back.store.ledger.bad_rows()] == [(5, KEYS[5])]


def test_the_name_of_imported_features_is_their_recipe(manifest, tmp_path):
    np.save(tmp_path / "a.npy", np.ones((ROWS, 3), np.float64))
    np.save(tmp_path / "b.npy", np.full((ROWS, 3), 2, np.float64))
    store = tmp_path / "database.zarr"
    import_npy(tmp_path / "a.npy", manifest, store, name="mine", replace=False)
    assert FeatureReader.open(store).recipe.dtype == "float32"
    import_npy(tmp_path / "b.npy", manifest, store, name="mine", replace=False)
    assert (FeatureReader.open(store).read(0, ROWS) == 2).all()
    with pytest.raises(RecipeMismatch, match="made by"):
        import_npy(tmp_path / "a.npy", manifest, store, name="other", replace=False)
    import_npy(tmp_path / "a.npy", manifest, store, name="other", replace=True)
    assert (FeatureReader.open(store).read(0, ROWS) == 1).all()


def test_files_that_do_not_fit_are_rejected(reader, manifest, tmp_path):
    for name, array in (
        ("short.npy", np.ones((ROWS - 1, 3))),
        ("flat.npy", np.ones(ROWS)),
        ("whole.npy", np.ones((ROWS, 3), np.int64)),
    ):
        np.save(tmp_path / name, array)
        with pytest.raises(InputError, match=rf"{name} holds .*expected floats \(100, F\)"):
            import_npy(tmp_path / name, manifest, tmp_path / "new.zarr", name="x", replace=False)
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(InputError, match=r"not a readable \.npy"):
        import_npy(tmp_path / "text.npy", manifest, tmp_path / "new.zarr", name="x", replace=False)
    with pytest.raises(InputError, match="does not exist"):
        import_npy(tmp_path / "absent.npy", manifest, tmp_path / "new.zarr", name="x", replace=False)
    shorter = write_manifest(
        tmp_path / "short.parquet", [next(manifest.batches()).slice(1)], root=tmp_path, zone="", source="csv"
    )
    with pytest.raises(InputError, match="made for other images"):
        export_npy(reader, shorter, tmp_path / "out.npy")
    reader.store.ledger.reopen(0)
    with pytest.raises(StoreError, match="run `pipeline extract"):
        export_hdf5(reader, manifest, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_the_import_and_export_commands(features, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(Path(__file__).parents[3] / "params.yaml", project / "params.yaml")
    lines = [f"{key},{500_000 + row * 10},4000000,10S" for row, key in enumerate(KEYS)]
    positions = tmp_path / "mine.csv"
    positions.write_text("\n".join(["path,utm_east,utm_north,zone", *lines]))
    np.save(tmp_path / "mine.npy", features)

    def pipeline(*arguments):
        command = ["--project", str(project), *map(str, arguments)]
        return CliRunner().invoke(cli, command, catch_exceptions=False)

    done = pipeline(
        "import", "features", tmp_path / "mine.npy", positions, "--split", "database", "--name", "mine"
    )
    assert done.exit_code == 0
    extract = load_params(project / "params.yaml").extract
    store = Paths(project, f"{extract.backbone}-{extract.image_size}").features("database")
    np.testing.assert_array_equal(FeatureReader.open(store).read(0, ROWS), features)
    assert pipeline("export", "features", tmp_path / "out.h5", "--split", "database").exit_code == 0
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file[KEYS[9]]["global_descriptor"][:], features[9])
    with pytest.raises(InputError, match=r"unknown suffix: expected \.h5"):
        pipeline("export", "features", tmp_path / "out.mat", "--split", "database")
    positions.write_text(positions.read_text() + "\n,1,2,10S")
    with pytest.raises(InputError, match="unusable entries"):
        pipeline("import", "features", tmp_path / "mine.npy", positions, "--split", "database", "--name", "m")
