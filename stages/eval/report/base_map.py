"""What lies below the photos of the map: streets, database photos, and tiles of a server if one is named."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import utm

from stages.errors import InputError
from stages.index.utm_zone import Zone

Floats = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]

STREETS_BYTES = 2_000_000
"""Limit of the streets in a page; details are left out until they fit."""
MOST_FILE_BYTES = 1_000_000_000
_DOTS = 50_000
"""Most database photos drawn; of more a regular sample is taken."""
_AROUND_M = 300.0
_TOLERANCE_M = 1.0
_DEGREE = 4


@dataclass(frozen=True)
class BaseMap:
    """The files and addresses of a base map: streets as GeoJSON, and a template of tile addresses."""

    streets: Path | None = None
    tiles: str | None = None

    def data(self, zone: str, places: Floats, photos: Floats | None) -> dict[str, Any]:
        """Return what map.js draws around `places` (n, 2); `photos` (m, 2) are those of the database.

        Raises
        ------
        InputError
            If the streets cannot be read, the address is no template, or the zone is unknown.
        """
        if (self.streets or self.tiles) and not zone:
            raise InputError(
                "streets and tiles need the UTM zone, which this localiser does not know: add a column zone "
                "to the positions of the database and train it again"
            )
        known = places[np.isfinite(places).all(axis=1)]
        if not len(known):
            known = np.zeros((1, 2))
        west, south = (known.min(axis=0) - _AROUND_M).tolist()
        east, north = (known.max(axis=0) + _AROUND_M).tolist()
        box = (west, south, east, north)
        return {
            "streets": None if self.streets is None else packed_streets(self.streets, Zone.of(zone), box),
            "dots": None
            if photos is None or not len(photos)
            else packed(photos[:: -(-len(photos) // _DOTS)]),
            "tiles": None if self.tiles is None else tile_server(self.tiles, Zone.of(zone), box),
        }


def packed(positions: npt.NDArray[Any]) -> str:
    """Return metres as base64 of little-endian int32 decimetres, row by row."""
    return base64.b64encode(np.round(positions * 10).astype("<i4").tobytes()).decode()


def packed_streets(path: Path, zone: Zone, box: Box) -> str:
    """Return the lines of a GeoJSON within a box in metres, simplified until they fit the limit."""
    lines = [part for line in _read_lines(path) for part in _clip(zone.metres(line[:, ::-1]), box)]
    tolerance_m = _TOLERANCE_M
    while True:
        kept = [_simplify(line, tolerance_m) for line in lines]
        numbers = [np.append(len(line), np.round(line * 10)).astype("<i4") for line in kept if len(line) > 1]
        content = b"".join(array.tobytes() for array in numbers)
        if len(content) * 4 / 3 <= STREETS_BYTES:
            return base64.b64encode(content).decode()
        tolerance_m *= 2
        # Below the tolerance a street is a dot: the shortest ones are left out.
        lines = [line for line in lines if np.ptp(line, axis=0).max() > tolerance_m]


def tile_server(url: str, zone: Zone, box: Box) -> dict[str, Any]:
    """Return a tile server's address and host, and polynomials between metres and Web Mercator."""
    parts = urlsplit(url)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or not all(name in url for name in ("{z}", "{x}", "{y}"))
    ):
        raise InputError(
            f"--tiles {url}: expected an address with {{z}}, {{x}} and {{y}}, such as "
            "https://tile.example.org/{z}/{x}/{y}.png"
        )
    grid = np.stack(np.meshgrid(np.linspace(box[0], box[2], 9), np.linspace(box[1], box[3], 9)), -1)
    metres = grid.reshape(-1, 2)
    latitude, longitude = utm.to_latlon(*metres.T, zone.number, northern=zone.northern, strict=False)
    rows = (1 - np.arcsinh(np.tan(np.radians(latitude))) / np.pi) / 2
    world = np.stack([(longitude + 180) / 360, rows], axis=1)  # a square of side 1
    host = f"{parts.scheme}://{parts.netloc}"
    return {
        "url": url,
        "host": host,
        "credit": f"Tiles: {parts.hostname} \u00b7 map data \u00a9 OpenStreetMap contributors",
        "to_world": _fit(metres, world),
        "to_ground": _fit(world, metres),
    }


def _fit(source: Floats, target: Floats) -> dict[str, Any]:
    """Return the factors of a polynomial that turns points (n, 2) into points: its powers and both values."""
    centre = source.mean(axis=0)
    unit = float(np.abs(source - centre).max()) or 1.0
    x, y = ((source - centre) / unit).T
    powers = [(i, j) for i in range(_DEGREE + 1) for j in range(_DEGREE + 1 - i)]
    columns = np.stack([x**i * y**j for i, j in powers], axis=1)
    factors = np.linalg.lstsq(columns, target, rcond=None)[0]
    # As text: numbers of the page are rounded to four decimals.
    terms = [[*power, *map(str, pair.tolist())] for power, pair in zip(powers, factors, strict=True)]
    return {"from": list(map(str, centre.tolist())), "unit": str(unit), "terms": terms}


def _read_lines(path: Path) -> Iterator[Floats]:
    """Yield each line of a GeoJSON as (n, 2) longitudes and latitudes."""
    if path.stat().st_size > MOST_FILE_BYTES:
        raise InputError(
            f"{path} has {path.stat().st_size / 1e9:.1f} GB: expected up to 1 GB; cut out your area first"
        )
    try:
        content = json.loads(path.read_bytes())
        lines = [np.array([point[:2] for point in line], np.float64) for line in _lines(content)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is no GeoJSON ({error!r}): expected one with longitudes and latitudes, as "
            "`osmium export` writes it"
        ) from error
    for line in lines:
        if line.ndim == 2 and line.shape[1] == 2 and np.isfinite(line).all():
            yield line


def _lines(node: Any) -> Iterable[Any]:
    """Yield the coordinates of all lines and outlines in a GeoJSON object."""
    kind = None if node is None else node["type"]
    if kind == "FeatureCollection":
        for feature in node["features"]:
            yield from _lines(feature)
    elif kind == "Feature":
        yield from _lines(node["geometry"])
    elif kind == "GeometryCollection":
        for part in node["geometries"]:
            yield from _lines(part)
    elif kind == "LineString":
        yield node["coordinates"]
    elif kind in ("MultiLineString", "Polygon"):
        yield from node["coordinates"]
    elif kind == "MultiPolygon":
        for polygon in node["coordinates"]:
            yield from polygon


def _clip(line: Floats, box: Box) -> Iterator[Floats]:
    """Yield the parts of a line whose segments touch the box."""
    low, high = np.minimum(line[:-1], line[1:]), np.maximum(line[:-1], line[1:])
    inside = (high >= box[:2]).all(axis=1) & (low <= box[2:]).all(axis=1)  # NaN is not inside
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    for start, stop in edges.reshape(-1, 2):
        yield line[start : stop + 1]


def _simplify(line: Floats, tolerance_m: float) -> Floats:
    """Return the line without points closer than the tolerance to the rest of it (Douglas-Peucker)."""
    kept = np.zeros(len(line), np.bool_)
    kept[[0, -1]] = True
    stack = [(0, len(line) - 1)]
    while stack:
        first, last = stack.pop()
        if last - first < 2:
            continue
        along, points = line[last] - line[first], line[first + 1 : last] - line[first]
        length = float(np.hypot(*along))
        away = np.hypot(*points.T)
        if length > 0:
            share = np.clip(points @ along / length**2, 0, 1)
            away = np.hypot(*(points - share[:, None] * along).T)
        farthest = int(away.argmax())
        if away[farthest] > tolerance_m:
            middle = first + 1 + farthest
            kept[middle] = True
            stack += [(first, middle), (middle, last)]
    return line[kept]
