"""Cells, database photos and predictions as GeoParquet, the layers of a map in QGIS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.project.paths import Paths
from stages.errors import InputError
from stages.files import new_folder, note_of, open_parquet
from stages.index.geoparquet import GeoParquetWriter
from stages.index.manifest import Manifest
from stages.index.utm_zone import Zone
from stages.partition.classes import ClassTable
from stages.partition.places import Places

Facts = list[tuple[str, object]]
_MADE_BY = "pipeline eval"


def export_map(paths: Paths, folder: Path) -> Facts:
    """Write one GeoParquet file per layer to a new folder, and return the lines to print.

    Predictions are left out before the first `pipeline eval`.

    Raises
    ------
    InputError
        If the folder exists, a zone is unknown, or the predictions were made with other cells.
    """
    classes = paths.partition / "classes.parquet"
    table = ClassTable.load(classes)
    with new_folder(folder) as partial:
        layers = {"cells": _write_cells(partial / "cells.parquet", table, Zone.of_file(table.zone, classes))}
        manifest = Manifest.open(paths.index("database"))
        layers["database photos"] = _write_photos(partial / "database.parquet", manifest)
        if paths.predictions.exists():
            target = partial / "predictions.parquet"
            layers["predictions"] = _write_predictions(target, paths.predictions, table)
    return [*layers.items(), ("folder", folder)]


def _write_cells(path: Path, classes: ClassTable, zone: Zone) -> int:
    """Write the squares that answers name, counterclockwise from the south-west corner."""
    places = Places.of(classes)
    side_m = places.span * places.cell_m
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    squares = places.centres[:, None] + corners * side_m[:, None, None]
    columns = {
        "place": np.arange(len(places)),
        "images": places.images,
        "group": places.group,
        "size": pa.array(places.bucket.tolist(), pa.string()),
        "side_m": side_m,
    }
    with GeoParquetWriter(path, "Polygon") as layer:
        layer.write(pa.table(columns), zone.degrees(squares))
    return layer.rows


def _write_photos(path: Path, manifest: Manifest) -> int:
    """Write all columns of a manifest, batch by batch: it may have tens of millions of rows."""
    zone = Zone.of_file(manifest.zone, manifest.path)
    with GeoParquetWriter(path, "Point") as layer:
        for batch in manifest.batches():
            table = pa.Table.from_batches([batch])
            layer.write(table, zone.degrees(_metres(table, "utm")))
    return layer.rows


def _write_predictions(path: Path, predictions: Path, classes: ClassTable) -> int:
    """Write the first answers of classify, with all columns that have one value per query."""
    with open_parquet(predictions, made_by=_MADE_BY) as file:
        note, table = note_of(file, predictions, made_by=_MADE_BY), file.read()
    partition = classes.origin.get("partition", "")
    if note.get("origin", {}).get("partition", partition) != partition:
        raise InputError(f"{predictions} was made with other cells: run `dvc repro`, then export again")
    lists = [field.name for field in table.schema if pa.types.is_list(field.type)]
    zone = Zone.of_file(note["zone"], predictions)
    with GeoParquetWriter(path, "Point") as layer:
        layer.write(table.drop_columns(lists), zone.degrees(_metres(table, "predicted")))
    return layer.rows


def _metres(table: pa.Table, prefix: str) -> npt.NDArray[np.float64]:
    return np.stack([table[f"{prefix}_{axis}"].to_numpy() for axis in ("east", "north")], axis=1)
