"""Self-contained pages from Jinja2 templates: style, script and data inside, all text escaped."""

from __future__ import annotations

import base64
import hashlib
import math
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from stages.eval.report.text import label, metres, number
from stages.files import printable

SCRIPTS = ("base_map.js", "map.js", "list.js")


def render(template: str, *, data: dict[str, Any], **values: Any) -> str:
    """Return the page that a template of `templates/` makes of the values.

    Parameters
    ----------
    template : str
        File name of a template that extends `base.html`.
    data : dict
        What map and list show (see `stages.eval.report.map_data`), written as JSON.
    **values : object
        What the template names; a missing one is an error.
    """
    script = "".join(asset(name) for name in SCRIPTS)
    # The page's policy allows this script only, so a browser never runs what a file name may smuggle in.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _TEMPLATES.get_template(template).render(
        style=Markup(asset("page.css")),
        script=Markup(script),
        script_digest=digest,
        data=data,
        map_data=json_text(data),
        tile_host=f" {data['tiles']['host']}" if data.get("tiles") else "",
        **values,
    )


def asset(name: str) -> str:
    """Return the text of a file of this package."""
    return (resources.files("stages.eval.report") / name).read_text(encoding="utf-8")


def json_text(data: Any) -> Markup:
    """Return JSON that is safe inside a script element; numbers that are not finite become null."""
    return htmlsafe_json_dumps(_finite(data), separators=(",", ":"))


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


_TEMPLATES = Environment(
    loader=PackageLoader("stages.eval.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters |= {"label": label, "metres": metres, "number": number, "printable": printable}
