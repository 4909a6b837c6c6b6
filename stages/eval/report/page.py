"""One HTML page that needs nothing beside itself: style, script and data inside, everything escaped."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from html import escape
from importlib import resources
from typing import Any

import numpy as np

_DATA_ID = "map-data"


def document(title: str, body: str, *, data: Any) -> str:
    """Return a whole page with the map's script and data.

    The page allows itself no network, and no script but its own: whatever a file name might
    smuggle in, a browser would not run it.

    Parameters
    ----------
    title : str
        Plain text.
    body : str
        HTML that holds the map (see `stages.eval.report.map_view`).
    data : object
        What the map shows; see `json_text`.
    """
    style, script = asset("page.css"), asset("map.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n"
        f'<script type="application/json" id="{_DATA_ID}">{json_text(data)}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def asset(name: str) -> str:
    """Return the text of a file that lies beside this module."""
    return (resources.files("stages.eval.report") / name).read_text(encoding="utf-8")


def json_text(data: Any) -> str:
    """Return JSON that is safe inside a script element; numbers that are not finite become null."""
    text = json.dumps(_finite(data), separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def table(caption: str, columns: list[str], rows: list[list[str]], *, name_column: int = -1) -> str:
    """Return a table of plain texts as HTML; one column may hold long names."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    lines = []
    for row in rows:
        cells = (
            f"<td{' class=name' if number == name_column else ''}>{escape(cell)}</td>"
            for number, cell in enumerate(row)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def metres(length_m: float) -> str:
    """Return a length as a person writes it."""
    if not math.isfinite(length_m):
        return "no answer"
    if length_m >= 1000:
        return f"{length_m / 1000:,.1f} km"
    return f"{length_m:.0f} m" if length_m >= 10 else f"{length_m:.1f} m"


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(name): _finite(value) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    if isinstance(data, np.generic):
        data = data.item()
    if isinstance(data, float):
        return round(data, 4) if math.isfinite(data) else None
    return data
