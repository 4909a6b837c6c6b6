"""Positions in COLMAP's text form for geo-registration: a line ``image latitude longitude altitude``."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

from stages.errors import InputError
from stages.files import replacing
from stages.index.manifest import Manifest
from stages.index.utm_zone import Zone


def write_colmap_positions(manifest: Manifest, path: Path) -> int:
    """Write the positions of a manifest in degrees, with altitude 0, and return how many.

    COLMAP reads them with ``model_aligner --ref_images_path FILE --ref_is_gps 1``.

    Raises
    ------
    InputError
        If the zone is unknown, so that there are no degrees, or a key holds a space.
    """
    zone = Zone.of_file(manifest.zone, manifest.path)
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for batch in manifest.batches(["key", "utm_east", "utm_north"]):
            positions = np.stack([batch[name].to_numpy() for name in ("utm_east", "utm_north")], axis=1)
            degrees = zone.degrees(positions).tolist()
            for key, (latitude, longitude) in zip(batch["key"].to_pylist(), degrees, strict=True):
                if any(letter.isspace() for letter in key):
                    raise InputError(f"{key!r} holds a space, which COLMAP's list cannot: rename the image")
                file.write(f"{key} {latitude:.10f} {longitude:.10f} 0\n")
    return manifest.rows


def convert_colmap_positions(path: Path, table: Path) -> None:
    """Turn a list in COLMAP's form into a CSV that the index reads.

    Raises
    ------
    InputError
        If a line is not ``image latitude longitude altitude``, in degrees.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): expected UTF-8 text") from error
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "lat", "lon"))
        for number, line in enumerate(lines, 1):
            fields = line.split()
            if fields and not line.startswith("#"):
                writer.writerow(_checked(fields, f"line {number} of {path}"))


def _checked(fields: list[str], where: str) -> tuple[str, str, str]:
    try:
        latitude, longitude, altitude = (float(field) for field in fields[1:])
    except ValueError:
        raise InputError(
            f"{where} is {' '.join(fields)!r}: expected image latitude longitude altitude"
        ) from None
    if not (abs(latitude) <= 90 and abs(longitude) <= 180 and math.isfinite(altitude)):
        raise InputError(
            f"{where} states {latitude:g} {longitude:g}, which are not degrees: write metres to a .csv with "
            "the columns path, utm_east, utm_north and zone"
        )
    return fields[0], fields[1], fields[2]
