"""A project on imported features: what an import changes, and what the other commands make of it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from cache.reader import FeatureReader
from pipeline.cli import main
from pipeline.project.params import load_params
from pipeline.project.paths import Paths
from stages.index.manifest import Manifest
from tests.support.features_to_import import KEYS, ROWS, positions_csv

TEMPLATE = Path(__file__).parents[3] / "params.yaml"
FEATURES = np.random.default_rng(0).normal(size=(ROWS, 7)).astype(np.float16)
QUERIES = ["a.jpg", "b.jpg", "c.jpg"]


@pytest.fixture
def call(tmp_path, capsys):
    """Run a command in a project that has only its params.yaml; exit code and output."""
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(TEMPLATE, project / "params.yaml")

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(("--project", str(project), *map(str, arguments)))
        printed = capsys.readouterr()
        return stopped.value.code or 0, " ".join((printed.out + printed.err).split())

    run.project = project
    return run


@pytest.fixture
def files(tmp_path):
    """Features and positions of both splits: (database, queries)."""
    np.save(tmp_path / "db.npy", FEATURES)
    np.save(tmp_path / "q.npy", FEATURES[:3])
    return (
        (tmp_path / "db.npy", positions_csv(tmp_path / "db.csv")),
        (tmp_path / "q.npy", positions_csv(tmp_path / "q.csv", QUERIES)),
    )


def import_both(call, files, name="mine"):
    for split, given in zip(("database", "queries"), files, strict=True):
        assert call("import", "features", *given, "--split", split, "--name", name)[0] == 0


def paths_of(call, name="mine"):
    return Paths(call.project, f"imported-{name}-224")


def tree(folder):
    """Content and place of everything under a folder."""
    files = (path for path in sorted(folder.rglob("*")))
    return {
        path.relative_to(folder): hashlib.md5(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in files
    }


def test_an_import_sets_the_project_up(call, files):
    code, printed = call("import", "features", *files[0], "--split", "database", "--name", "mine")
    assert code == 0
    assert "params.yaml extract.backbone: imported:mine" in printed
    params = load_params(call.project / "params.yaml")
    assert (params.data.database, params.data.queries) == ("imported", "imported")
    assert params.extract.imported == "mine"
    assert not params.train.augment_views
    assert params.partition.max_views == 0
    store = FeatureReader.open(paths_of(call).features("database"))
    np.testing.assert_array_equal(store.read(0, ROWS), FEATURES)
    assert Manifest.open(paths_of(call).index("database")).rows == ROWS


def test_an_import_keeps_the_comments_of_params_yaml(call, files):
    import_both(call, files)
    before, after = TEMPLATE.read_text().splitlines(), (call.project / "params.yaml").read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    names = [new.split(":")[0].strip() for _, new in changed]
    assert names == ["database", "queries", "max_views", "backbone", "augment_views"]
    assert all(old.split("#")[1] == new.split("#")[1] for old, new in changed)


def test_index_and_extract_have_nothing_to_do(call, files):
    import_both(call, files)
    before = tree(call.project)
    code, printed = call("index")
    assert code == 0
    assert printed.count("imported as mine: nothing to do") == 2
    code, printed = call("extract", "--split", "database", "--keep")
    assert (code, printed) == (0, "extract database: imported as mine, nothing to do")
    # DVC expects the lists of skipped entries of every index; nothing else is written.
    lists = {path for path in tree(call.project) if path.name.endswith("-skipped.csv")}
    assert {path: digest for path, digest in tree(call.project).items() if path not in lists} == before


def test_index_restores_manifests_that_dvc_deleted(call, files):
    import_both(call, files)
    index = paths_of(call).index("queries")
    digest = Manifest.open(index).digest
    index.unlink()
    paths_of(call).index("database").write_bytes(b"torn")
    code, printed = call("index")
    assert code == 0
    assert printed.count("imported as mine: restored") == 2
    assert Manifest.open(index).digest == digest


def test_extract_makes_an_empty_store_of_views(call, files):
    import_both(call, files)
    assert call("partition")[0] == 0
    assert call("extract", "--split", "views", "--keep")[0] == 0
    assert FeatureReader.open(paths_of(call).features("views")).rows == 0
    params = call.project / "params.yaml"
    params.write_text(params.read_text().replace("max_views: 0", "max_views: 2"))
    assert call("partition")[0] == 0
    code, printed = call("extract", "--split", "views", "--keep")
    assert code == 1
    assert "set partition.max_views to 0 and run `pipeline partition`" in printed


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (FEATURES[1:], r"holds float16 (99, 7): expected floats (100, F)"),
        (np.full((ROWS, 7), np.nan, np.float16), "no valid feature"),
        (np.ones((ROWS, 7), np.int64), "expected floats"),
        (FEATURES[:, :5], "length and type, use another --name, or replace the old ones with --replace"),
        (FEATURES.astype(np.float32), "dtype: float32 here, float16 in the store"),
    ],
)
def test_a_rejected_import_changes_nothing(array, message, call, files, tmp_path):
    import_both(call, files)
    before = tree(call.project)
    np.save(tmp_path / "other.npy", array)
    code, printed = call(
        "import", "features", tmp_path / "other.npy", files[0][1], "--split", "database", "--name", "mine"
    )
    assert code == 1
    assert message in printed
    assert tree(call.project) == before


def test_a_rejected_first_import_leaves_no_file(call, files, tmp_path):
    before = tree(call.project)
    given = (tmp_path / "db.npy", tmp_path / "q.csv")
    assert call("import", "features", *given, "--split", "database", "--name", "mine")[0] == 1
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_group("other.jpg")["global_descriptor"] = FEATURES[0]
    given = (tmp_path / "other.h5", tmp_path / "db.csv")
    code, printed = call("import", "features", *given, "--split", "database", "--name", "mine")
    assert code == 1
    assert "use the same names in both" in printed
    (tmp_path / "db.csv").write_text((tmp_path / "db.csv").read_text() + ",1,2,10S\n")
    assert call("import", "features", *files[0], "--split", "database", "--name", "mine")[0] == 1
    assert tree(call.project) == before


def test_names_that_are_no_folder_are_rejected(call, files):
    for name in ("../mine", "", "a b", "a/b", "x" * 65):
        code, printed = call("import", "features", *files[0], "--split", "database", "--name", name)
        assert code == 1
        assert "expected up to 64 letters" in printed


def test_splits_must_have_one_name_length_and_zone(call, files, tmp_path):
    database, queries = files
    assert call("import", "features", *database, "--split", "database", "--name", "mine")[0] == 0
    code, printed = call("import", "features", *queries, "--split", "queries", "--name", "other")
    assert code == 1
    assert "use --name mine, or import the database as other first" in printed
    np.save(tmp_path / "long.npy", np.ones((3, 9), np.float16))
    code, printed = call(
        "import", "features", tmp_path / "long.npy", queries[1], "--split", "queries", "--name", "mine"
    )
    assert code == 1
    assert "outputs" in printed
    far = positions_csv(tmp_path / "far.csv", QUERIES, zone="40S")
    code, printed = call("import", "features", queries[0], far, "--split", "queries", "--name", "mine")
    assert code == 1
    assert "zone" in printed


def test_queries_take_the_zone_of_the_database(call, files, tmp_path):
    assert call("import", "features", *files[0], "--split", "database", "--name", "mine")[0] == 0
    border = tmp_path / "border.csv"
    lines = [f"{key},36.1,-120.0{row}" for row, key in enumerate(QUERIES)]
    border.write_text("\n".join(["path,lat,lon", *lines]))
    done = call("import", "features", files[1][0], border, "--split", "queries", "--name", "mine")
    assert done[0] == 0
    assert Manifest.open(paths_of(call).index("queries")).zone == "10S"


def test_a_second_name_leaves_the_first_alone(call, files):
    import_both(call, files)
    before = tree(paths_of(call).features("database").parent)
    assert call("import", "features", *files[0], "--split", "database", "--name", "other")[0] == 0
    assert tree(paths_of(call).features("database").parent) == before
    code, printed = call("index")
    assert code == 1
    assert "the queries features of other are not imported: run `pipeline import features" in printed
    params = call.project / "params.yaml"
    params.write_text(params.read_text().replace("imported:other", "imported:mine"))
    assert call("index")[0] == 0


def test_replace_changes_the_length_and_says_what_no_longer_fits(call, files, tmp_path):
    import_both(call, files)
    np.save(tmp_path / "long.npy", np.ones((ROWS, 9), np.float16))
    given = (tmp_path / "long.npy", files[0][1], "--split", "database", "--name", "mine", "--replace")
    assert call("import", "features", *given)[0] == 0
    code, printed = call("extract", "--split", "queries")
    assert code == 1
    assert "differ (outputs" in printed
    np.save(tmp_path / "long.npy", np.ones((3, 9), np.float16))
    given = (tmp_path / "long.npy", files[1][1], "--split", "queries", "--name", "mine", "--replace")
    assert call("import", "features", *given)[0] == 0
    assert call("extract", "--split", "queries")[0] == 0


def test_extract_names_the_import_when_features_are_lost(call, files):
    import_both(call, files)
    FeatureReader.open(paths_of(call).features("queries")).store.ledger.reopen(0)
    code, printed = call("extract", "--split", "queries")
    assert code == 1
    assert "lacks 3 of 3 rows: run `pipeline import features` again for queries" in printed
    code, printed = call("doctor", "--device", "cpu")
    assert code == 1
    assert "ok features database 100 rows, imported as mine" in printed
    shutil.rmtree(paths_of(call).features("database"))
    code, printed = call("extract", "--split", "database")
    assert code == 1
    assert "does not exist: run `pipeline import features` again for database" in printed


@pytest.mark.parametrize("setting", ["database: imported", "queries: imported", "backbone: imported:mine"])
def test_half_imported_settings_are_an_error(setting, call):
    name = setting.split(":")[0]
    params = call.project / "params.yaml"
    lines = params.read_text().splitlines()
    row = next(row for row, line in enumerate(lines) if line.strip().startswith(f"{name}:"))
    params.write_text("\n".join([*lines[:row], f"  {setting}", *lines[row + 1 :]]))
    code, printed = call("index")
    assert code == 1
    assert "expected all three to be imported" in printed


def test_hloc_files_come_and_go(call, files, tmp_path):
    import_both(call, files)
    for file in (tmp_path / "out.h5", tmp_path / "out"):
        assert call("export", "features", file, "--split", "database")[0] == 0
        done = call("import", "features", file, files[0][1], "--split", "database", "--name", "mine")
        assert done[0] == 0
        store = FeatureReader.open(paths_of(call).features("database"))
        np.testing.assert_array_equal(store.read(0, ROWS), FEATURES)
    code, printed = call("export", "features", tmp_path / "out.mat", "--split", "database")
    assert code == 1
    assert "not a known kind of file: expected .h5, .hdf5, .npy, or a folder" in printed


def test_positions_come_and_go_in_the_form_of_colmap(call, files, tmp_path):
    import_both(call, files)
    before = Manifest.open(paths_of(call).index("database"))
    positions, keys = before.positions(), before.keys(0, ROWS)
    assert call("export", "positions", tmp_path / "ref.txt", "--split", "database")[0] == 0
    given = (files[0][0], tmp_path / "ref.txt", "--split", "database", "--name", "mine")
    assert call("import", "features", *given)[0] == 0
    after = Manifest.open(paths_of(call).index("database"))
    assert after.keys(0, ROWS) == keys == KEYS
    np.testing.assert_allclose(after.positions(), positions, atol=1e-4)
