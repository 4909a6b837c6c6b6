"""GeoParquet 1.1: Parquet tables with points or squares in degrees, as QGIS and GeoPandas open them."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

COLUMN = "geometry"
_CORNERS = 5  # of a square, as a closed ring
_LITTLE_ENDIAN = 1
_POINT = np.dtype([("order", "u1"), ("type", "<u4"), ("lonlat", "<f8", (2,))])
_SQUARE = np.dtype(
    [("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("corners", "<u4"), ("lonlat", "<f8", (_CORNERS, 2))]
)
_WGS_84 = {
    "$schema": "https://proj.org/schemas/v0.7/projjson.schema.json",
    "type": "GeographicCRS",
    "name": "WGS 84",
    "datum": {
        "type": "GeodeticReferenceFrame",
        "name": "World Geodetic System 1984",
        "ellipsoid": {
            "name": "WGS 84",
            "semi_major_axis": 6378137,
            "inverse_flattening": 298.257223563,
        },
    },
    "coordinate_system": {
        "subtype": "ellipsoidal",
        "axis": [
            {"name": "Geodetic latitude", "abbreviation": "Lat", "direction": "north", "unit": "degree"},
            {"name": "Geodetic longitude", "abbreviation": "Lon", "direction": "east", "unit": "degree"},
        ],
    },
    "id": {"authority": "EPSG", "code": 4326},
}

Kind = Literal["Point", "Polygon"]


class GeoParquetWriter:
    """A new GeoParquet file, written table by table; a context manager."""

    def __init__(self, path: Path, kind: Kind) -> None:
        self._path, self._kind, self.rows = path, kind, 0
        self._writer: pq.ParquetWriter | None = None
        self._low, self._high = np.full(2, np.inf), np.full(2, -np.inf)

    def __enter__(self) -> GeoParquetWriter:
        return self

    def write(self, table: pa.Table, latlon: npt.NDArray[np.float64]) -> None:
        """Add rows; all tables need the same columns.

        Parameters
        ----------
        table
            The other columns; one named geometry is left out.
        latlon
            Latitude and longitude in degrees: (n, 2) of points, or (n, 4, 2) of the corners of squares,
            counterclockwise. The geometry of a row with NaN is null.
        """
        lonlat = latlon[..., ::-1]
        if COLUMN in table.column_names:
            table = table.drop_columns([COLUMN])
        table = table.append_column(COLUMN, _well_known_binary(lonlat))
        if self._writer is None:
            # Without Arrow's own schema, its readers find the metadata that is added last.
            schema = table.schema.remove_metadata()
            self._writer = pq.ParquetWriter(self._path, schema, write_page_checksum=True, store_schema=False)
        self._writer.write_table(table.replace_schema_metadata(None))
        points = lonlat.reshape(-1, 2)  # fmin and fmax skip NaN
        self._low = np.fmin(self._low, np.fmin.reduce(points, axis=0, initial=np.inf))
        self._high = np.fmax(self._high, np.fmax.reduce(points, axis=0, initial=-np.inf))
        self.rows += table.num_rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.add_key_value_metadata({"geo": json.dumps(self._metadata())})
            self._writer.close()

    def _metadata(self) -> dict[str, Any]:
        column: dict[str, Any] = {"encoding": "WKB", "geometry_types": [self._kind], "crs": _WGS_84}
        if self._kind == "Polygon":
            column["orientation"] = "counterclockwise"
        if np.isfinite(self._low).all():
            column["bbox"] = [*self._low.tolist(), *self._high.tolist()]
        return {"version": "1.1.0", "primary_column": COLUMN, "columns": {COLUMN: column}}


def _well_known_binary(lonlat: npt.NDArray[np.float64]) -> pa.Array:
    """Return points (n, 2) or squares (n, 4, 2) as WKB, null where a number is NaN."""
    point = lonlat.ndim == 2
    shapes = np.zeros(len(lonlat), _POINT if point else _SQUARE)
    shapes["order"] = _LITTLE_ENDIAN
    shapes["type"] = 1 if point else 3
    if not point:
        shapes["rings"], shapes["corners"] = 1, _CORNERS
        lonlat = np.concatenate([lonlat, lonlat[:, :1]], axis=1)
    shapes["lonlat"] = lonlat
    width = pa.binary(shapes.dtype.itemsize)
    binary = pa.FixedSizeBinaryArray.from_buffers(width, len(shapes), [None, pa.py_buffer(shapes)])
    known = np.isfinite(lonlat).all(axis=tuple(range(1, lonlat.ndim)))
    return pc.if_else(pa.array(known), binary.cast(pa.binary()), pa.scalar(None, pa.binary()))
