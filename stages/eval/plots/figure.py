"""One plot as a PNG file, and as an SVG element for the report."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from stages.eval.plots.curves import Curve
from stages.files import replacing

INK, MUTED, LINE, PANEL = "#18222d", "#5a6773", "#dde3e9", "#ffffff"
SERIES = ("#0b7a75", "#1f5fa8", "#b5530f", "#7a3e9d")
"""Colours of lines and bars, distinguishable with colour blindness."""

SHADE = "#c5d4e3"
SIZE_IN = (4.6, 3.2)
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
}
_THEMED = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    PANEL: "var(--panel)",
    SHADE: "var(--cell-1)",
    SERIES[0]: "var(--right)",
    SERIES[1]: "var(--accent)",
    SERIES[2]: "var(--wrong)",
    SERIES[3]: "var(--unknown)",
}


@dataclass(frozen=True)
class Plot:
    """A drawn figure; `name` is that of its file, without suffix."""

    name: str
    title: str
    caption: str
    figure: Figure

    def save_png(self, folder: Path) -> None:
        """Write the figure as `name`.png, 200 dots per inch."""
        with replacing(folder / f"{self.name}.png") as partial:
            self.figure.savefig(partial, format="png", dpi=200, metadata={"Software": None})

    def svg(self) -> str:
        """Return the figure as an SVG element whose colours follow the page's light or dark theme."""
        text = io.StringIO()
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            self.figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        svg = text.getvalue()
        svg = svg[svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
        # The ids of one SVG are unique, but a page holds several.
        svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{self.name}-", svg)
        for colour, variable in _THEMED.items():
            svg = svg.replace(colour, variable)
        head, rest = svg.split(">", 1)
        head = re.sub(r' (width|height)="[^"]*"', "", head)
        return f'{head} role="img" aria-label="{self.title}">{rest}'


def plot(curve: Curve, name: str, title: str, caption: str, draw: Callable[[Axes], None]) -> Plot | None:
    """Return the figure that `draw` draws; None if the curve is empty."""
    if not len(curve):
        return None
    with mpl.rc_context(_STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)
        figure = Figure(figsize=SIZE_IN, layout=layout, facecolor=PANEL)
        axes = figure.add_subplot()
        draw(axes)
        axes.set_title(title)
        # A second layout pass would move elements slightly, so that files differ from run to run.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return Plot(name, title, caption, figure)
