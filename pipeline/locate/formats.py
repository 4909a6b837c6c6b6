"""Located photos for other programs: JSON, CSV, GeoJSON and GPX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.locate.answer import Answer
from pipeline.locate.walk import gpx_text
from stages.files import printable, replacing
from stages.images.read import UnreadableImage

Outcome = Answer | UnreadableImage

_COLUMNS = (
    *("photo", "latitude", "longitude", "utm_east", "utm_north", "zone", "confidence", "abstained", "share"),
    *("reason", "session", "timestamp", "exif_latitude", "exif_longitude", "exif_distance_m", "error"),
)


def as_json(outcomes: Sequence[Outcome]) -> str:
    """Return a JSON list with one object per photo; that of an unreadable photo has only photo and error."""
    content = [
        _error(outcome) if isinstance(outcome, UnreadableImage) else outcome.as_dict() for outcome in outcomes
    ]
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def as_csv(outcomes: Sequence[Outcome]) -> str:
    """Return a table with one line per photo and its first place."""
    text = io.StringIO()
    table = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(_row(outcome) for outcome in outcomes)
    return text.getvalue()


def as_geojson(outcomes: Sequence[Outcome]) -> str:
    """Return a point per photo, with the columns of the CSV; no geometry where degrees are unknown."""
    features = []
    for outcome in outcomes:
        row = _row(outcome)
        latitude, longitude = row.pop("latitude", None), row.pop("longitude", None)
        point = None if latitude is None else {"type": "Point", "coordinates": [longitude, latitude]}
        features.append({"type": "Feature", "geometry": point, "properties": row})
    content = {"type": "FeatureCollection", "features": features}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def as_gpx(outcomes: Sequence[Outcome]) -> str:
    """Return a track per walk, without unreadable photos."""
    return gpx_text(outcome for outcome in outcomes if isinstance(outcome, Answer))


FORMATS: dict[str, Callable[[Sequence[Outcome]], str]] = {
    "json": as_json,
    "csv": as_csv,
    "geojson": as_geojson,
    "gpx": as_gpx,
}


def write(path: Path, content: str) -> None:
    """Write text to a file, which an old one is replaced by only when it is complete."""
    with replacing(path) as partial:
        partial.write_text(content, encoding="utf-8")


def _error(outcome: UnreadableImage) -> dict[str, Any]:
    return {"photo": printable(outcome.path), "error": outcome.reason}


def _row(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, UnreadableImage):
        return _error(outcome)
    content, exif, walk = outcome.as_dict(), outcome.exif or (None, None), outcome.walk
    row = {name: content[name] for name in _COLUMNS if name in content}
    return row | {
        "share": outcome.places[0].score,
        "session": None if walk is None else printable(walk.session),
        "timestamp": None if walk is None else walk.timestamp,
        "exif_latitude": exif[0],
        "exif_longitude": exif[1],
        "exif_distance_m": outcome.exif_distance_m,
    }
