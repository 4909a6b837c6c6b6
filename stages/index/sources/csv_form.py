"""The form of a CSV: encoding, delimiter, lines above the header, and what its columns hold.

Programs name the columns differently, and spreadsheets of different countries separate the fields
differently. What can be meant in only one way is read; for the rest an error names the fix.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from stages.errors import InputError
from stages.index.hashing import FILE_BYTES
from stages.index.manifest_writer import REQUIRED
from stages.index.sources.encoding import encoding_of, fix, whole_lines

METRES, DEGREES = ("utm_east", "utm_north"), ("lat", "lon")
_HEAD_BYTES, _SAMPLE_ROWS = 1 << 16, 100
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_XY = ("y", "x")
_LINE_END = re.compile(r"\r\n|\n|\r")
_OTHER_NAMES = {
    "path": ("file", "filename", "filepath", "image", "imagepath", "sourcefile"),
    "lat": ("latitude", "gpslatitude"),
    "lon": ("lng", "long", "longitude", "gpslongitude"),
    "utm_east": ("utmeast", "easting", "utmeasting"),
    "utm_north": ("utmnorth", "northing", "utmnorthing"),
    "zone": ("utmzone",),
    "heading": (),
    "timestamp": (),
}


@dataclass(frozen=True)
class CsvForm:
    """How one CSV is read.

    `skip_lines` is the number of lines up to the header, including it. `names` are the columns' in order,
    "" for a column without a name, which is left out. `position` is `METRES` or `DEGREES`.
    """

    encoding: str
    delimiter: str
    skip_lines: int
    names: tuple[str, ...]
    position: tuple[str, str]

    @property
    def extra_names(self) -> list[str]:
        """Names of the columns that are copied to the manifest unread."""
        used = {"", "path", "heading", "timestamp", *self.position}
        used |= {"zone"} if self.position == METRES else set()
        return [name for name in self.names if name not in used]


def form_of(path: Path) -> CsvForm:
    """Return the form of a CSV.

    Raises
    ------
    InputError
        If it is no text in UTF-8 or UTF-16, or its columns are not those that are needed.
    """
    encoding = encoding_of(path)
    lines, first = _head_lines(path, encoding)
    stated = re.fullmatch(r"sep=(.)\s*", lines[first], re.IGNORECASE)
    first += bool(stated)
    if not any(line.strip() for line in lines[first:]):
        raise InputError(f"{path} has no header: expected path and either lat, lon or utm_east, utm_north")
    delimiter = stated[1] if stated else _delimiter(lines[first])
    header, *rows = list(csv.reader(lines[first : first + _SAMPLE_ROWS], delimiter=delimiter))
    rows = [row for row in rows if row]
    names = [name.strip() for name in header]
    names += [""] * (_usual_width(path, names, rows, delimiter) - len(names))
    named, position = _meanings(path, names, rows, delimiter)
    form = CsvForm(encoding, delimiter, first + 1, tuple(named), position)
    _reject_names(path, form)
    return form


def _head_lines(path: Path, encoding: str) -> tuple[list[str], int]:
    """Return the first lines of a file and the number of the first that is not blank."""
    block = next(whole_lines(path, encoding, _HEAD_BYTES), (b"", 0))[0]
    try:
        lines = _LINE_END.split(block.decode())
    except UnicodeDecodeError as error:
        lines = _LINE_END.split(block[: error.start].decode())
        # The header must be read; the reader of the rows reports a fault below it.
        if not any(line.strip() for line in lines[:-1]):
            raise InputError(f"{path} is not UTF-8 (its header is not): {fix(path)}") from error
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise InputError(f"{path} is not a readable CSV: it is empty")
    return lines, first


def _delimiter(header: str) -> str:
    """Return what separates the names of a header: what makes the most columns that are known."""

    def score(delimiter: str) -> tuple[int, int]:
        names = next(csv.reader([header], delimiter=delimiter), [])
        return sum(any(_is_role(name, role) for role in (*_OTHER_NAMES, *_XY)) for name in names), len(names)

    return max(_DELIMITERS, key=score)


def _usual_width(path: Path, names: list[str], rows: list[list[str]], delimiter: str) -> int:
    """Return the number of fields of most rows, if those beyond the header are empty."""
    width, _ = Counter(map(len, rows)).most_common(1)[0] if rows else (len(names), 0)
    beyond = [row[len(names) :] for row in rows if len(row) == width]
    if width <= len(names):
        return len(names)
    if not any(field.strip() for fields in beyond for field in fields):
        return width
    commas = " (decimal commas between commas?)" if delimiter == "," else ""
    raise InputError(
        f"{path} has {len(names)} columns, but most rows have {width} fields{commas}: "
        "save it with semicolons or tabs between the fields, or give every column a name"
    )


def _meanings(
    path: Path, names: list[str], rows: list[list[str]], delimiter: str
) -> tuple[list[str], tuple[str, str]]:
    """Return the names with the project's own for the columns that it reads, and those of the position."""
    exact = (pair for pair in (METRES, DEGREES) if set(pair) <= set(names))
    other = (pair for pair in (DEGREES, METRES) if all(_columns(names, role) for role in pair))
    position: tuple[str, str] | None = next(chain(exact, other), None)
    roles = dict(zip(position or (), position or (), strict=True))
    if position is None and all(_columns(names, role) for role in _XY):
        position = _kind_of_xy(path, names, rows)
        roles = dict(zip(position, _XY if position == DEGREES else _XY[::-1], strict=True))
    if position is None or not _columns(names, "path"):
        raise InputError(
            f"{path} has the columns {', '.join(name or '(no name)' for name in names)}, separated by "
            f"{_DELIMITERS.get(delimiter, delimiter)}: "
            "expected path and either lat, lon or utm_east, utm_north; rename the columns"
        )
    meanings = list(names)
    for role in ("path", "zone", "heading", "timestamp", *position):
        columns = _columns(names, roles.get(role, role))
        if len(columns) > 1:
            both = " and ".join(repr(names[column]) for column in columns)
            raise InputError(
                f"{path} has two columns that can be {role}, {both}: rename the right one to {role}"
            )
        for column in columns:
            meanings[column] = role
    return meanings, position


def _columns(names: list[str], role: str) -> list[int]:
    """Return the columns that can have a role: the one with its very name, else those with another."""
    exact = [column for column, name in enumerate(names) if name == role]
    return exact[:1] or [column for column, name in enumerate(names) if _is_role(name, role)]


def _is_role(name: str, role: str) -> bool:
    plain = re.sub(r"[\s_\-.:]", "", name.casefold())
    return plain == role.replace("_", "") or plain in _OTHER_NAMES.get(role, ())


def _kind_of_xy(path: Path, names: list[str], rows: list[list[str]]) -> tuple[str, str]:
    """Return whether columns named x and y hold degrees (longitude, latitude) or metres."""
    if _columns(names, "zone"):
        return METRES
    columns = [_columns(names, role)[0] for role in _XY]
    texts = [[row[column].strip() for column in columns] for row in rows if len(row) > max(columns)]
    number = re.compile(r"[+-]?\d+[.,]?\d*")
    values = [
        [abs(float(text.replace(",", "."))) for text in pair]
        for pair in texts
        if all(map(number.fullmatch, pair))
    ]
    if values and all(y > 90 or x > 180 for y, x in values):
        return METRES
    # Degrees of one city have decimals and differ little; metres from a corner of a map differ more.
    spread = [max(axis) - min(axis) for axis in zip(*values, strict=True)]
    if values and all(y <= 90 and x <= 180 for y, x in values) and max(spread) < 3:
        return DEGREES
    raise InputError(
        f"{path} has columns x and y that may be degrees or metres: rename them to lon and lat, or to "
        "utm_east and utm_north"
    )


def _reject_names(path: Path, form: CsvForm) -> None:
    named = [name for name in form.names if name]
    repeated = sorted({name for name in named if named.count(name) > 1})
    if repeated:
        raise InputError(f"{path} has two columns named {repeated[0]}: expected different names")
    reserved = [name for name in form.extra_names if name in (*REQUIRED.names, FILE_BYTES)]
    if reserved:
        raise InputError(
            f"{path} has a column named {reserved[0]}, which the manifest uses itself: rename the column"
        )
