"""Cells, database photos and predictions as layers of a map."""

from __future__ import annotations

import json
import struct

import numpy as np
import pyarrow.parquet as pq
import pytest
import utm

from pipeline.cli import main
from stages.files import note_of, write_table
from stages.partition.classes import ClassTable
from tests.support.trained_project import BAD_QUERY, build_project


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return build_project(tmp_path_factory.mktemp("map"))


@pytest.fixture
def export(paths, tmp_path, capsys):
    """Export the map; return exit code, output and folder."""

    def run(folder=tmp_path / "map"):
        with pytest.raises(SystemExit) as stopped:
            main(("--project", str(paths.project), "export", "map", str(folder)))
        printed = capsys.readouterr()
        return stopped.value.code or 0, " ".join((printed.out + printed.err).split()), folder

    return run


def metres(lonlat):
    return np.array(utm.from_latlon(lonlat[1], lonlat[0], force_zone_number=10)[:2])


def test_three_layers_lie_where_the_project_says(paths, export):
    code, output, folder = export()
    assert code == 0, output
    assert "cells" in output
    assert sorted(file.name for file in folder.iterdir()) == [
        "cells.parquet",
        "database.parquet",
        "predictions.parquet",
    ]
    layers = {
        name: pq.read_table(folder / f"{name}.parquet") for name in ("cells", "database", "predictions")
    }
    for table in layers.values():
        geo = json.loads(table.schema.metadata[b"geo"])
        assert geo["columns"]["geometry"]["crs"]["id"]["code"] == 4326
    classes = ClassTable.load(paths.partition / "classes.parquet")
    cells = layers["cells"]
    assert cells["images"].to_pylist() == classes.images.tolist()
    lonlat = np.reshape(struct.unpack("<13x10d", cells["geometry"][5].as_py()), (5, 2))
    corners = np.stack([metres(point) for point in lonlat])
    np.testing.assert_allclose(corners[:4].mean(axis=0), classes.centres[5], atol=0.01)
    np.testing.assert_allclose(np.linalg.norm(np.diff(corners, axis=0), axis=1), 20, atol=0.01)
    for name, prefix in (("database", "utm"), ("predictions", "predicted")):
        row = layers[name].slice(7, 1).to_pylist()[0]
        place = metres(struct.unpack("<5x2d", row["geometry"]))
        np.testing.assert_allclose(place, [row[f"{prefix}_east"], row[f"{prefix}_north"]], atol=0.01)


def test_predictions_have_one_value_per_column(paths, export):
    _, _, folder = export()
    stored, layer = pq.read_table(paths.predictions), pq.read_table(folder / "predictions.parquet")
    assert set(stored.column_names) - set(layer.column_names) == {
        "class_ids",
        "scores",
        "answers_east",
        "answers_north",
    }
    assert layer["geometry"].null_count == 1
    assert layer["geometry"][BAD_QUERY].as_py() is None


def test_predictions_state_degrees(paths):
    rows = pq.read_table(paths.predictions)
    for degrees, prefix in (("", "utm"), ("predicted_", "predicted"), ("hybrid_", "hybrid")):
        row = rows.slice(9, 1).to_pylist()[0]
        place = metres([row[f"{degrees}longitude"], row[f"{degrees}latitude"]])
        np.testing.assert_allclose(place, [row[f"{prefix}_east"], row[f"{prefix}_north"]], atol=0.01)
    assert np.isnan(rows["predicted_latitude"][BAD_QUERY].as_py())


def test_predictions_of_other_cells_are_rejected(paths, export, tmp_path):
    path = paths.partition / "classes.parquet"
    before = path.read_bytes()
    table = ClassTable.load(path)
    table.origin["partition"] = "2" * 64
    table.save(path)
    try:
        code, output, _ = export()
    finally:
        path.write_bytes(before)
    assert code == 1
    assert "was made with other cells: run `dvc repro`" in output
    assert not list(tmp_path.iterdir())


def test_a_map_without_predictions_has_two_layers(paths, export):
    content = paths.predictions.read_bytes()
    paths.predictions.unlink()
    try:
        code, _, folder = export()
    finally:
        paths.predictions.write_bytes(content)
    assert code == 0
    assert not (folder / "predictions.parquet").exists()


def test_metres_without_a_zone_are_no_layer(paths, export):
    path = paths.index("database")
    before = path.read_bytes()
    with pq.ParquetFile(path) as file:
        note, table = note_of(file, path, made_by="pipeline index"), file.read()
    write_table(path, table, {**note, "zone": ""})
    try:
        code, output, _ = export()
    finally:
        path.write_bytes(before)
    assert code == 1
    assert "has no UTM zone" in output
    assert "add a column zone" in output
