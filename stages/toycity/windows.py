"""Windows, ten ways."""

from __future__ import annotations

import numpy as np
from PIL import ImageDraw

from stages.toycity.style import Colour, Style

Box = tuple[float, float, float, float]


def draw_window(draw: ImageDraw.ImageDraw, style: Style, box: Box, rng: np.random.Generator) -> None:
    """One window of the style's kind in `box` (left, top, right, bottom, pixels)."""
    left, top, right, bottom = box
    kind = style.window
    if kind == "tall":
        top -= (bottom - top) * 0.25
    elif kind == "slit":
        top -= (bottom - top) * 0.4
    elif kind == "ribbon":
        top += (bottom - top) * 0.3
    glass = _glass(rng)
    if kind == "round":
        radius = min(right - left, bottom - top) / 2
        x, y = (left + right) / 2, (top + bottom) / 2
        draw.ellipse((x - radius - 3, y - radius - 3, x + radius + 3, y + radius + 3), fill=style.trim)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=glass)
        draw.line([(x - radius, y), (x + radius, y)], fill=style.trim, width=2)
        draw.line([(x, y - radius), (x, y + radius)], fill=style.trim, width=2)
        return
    if kind == "bay":
        _bay_box(draw, style, (left, top, right, bottom))
    draw.rectangle((left - 3, top - 3, right + 3, bottom + 3), fill=style.trim)
    if kind == "arch":
        rise = (right - left) / 2
        draw.pieslice((left - 3, top - rise - 3, right + 3, top + rise + 3), 180, 360, fill=style.trim)
        draw.pieslice((left, top - rise, right, top + rise), 180, 360, fill=glass)
    draw.rectangle((left, top, right, bottom), fill=glass)
    _inside(draw, (left, top, right, bottom), glass, rng)
    _bars(draw, style, (left, top, right, bottom))
    draw.rectangle((left - 5, bottom + 2, right + 5, bottom + 5), fill=_dark(style.trim))
    if kind == "casement":
        for x in (left - 11, right + 4):
            draw.rectangle((x, top, x + 7, bottom), fill=style.accent)
            for y in np.arange(top + 2, bottom, 4.0):
                draw.line([(x + 1, y), (x + 6, y)], fill=_dark(style.accent))


def _glass(rng: np.random.Generator) -> Colour:
    tone = int(rng.integers(44, 96))
    return tone, tone + 8, tone + 18


def _dark(colour: Colour) -> Colour:
    return round(colour[0] * 0.72), round(colour[1] * 0.72), round(colour[2] * 0.72)


def _inside(draw: ImageDraw.ImageDraw, box: Box, glass: Colour, rng: np.random.Generator) -> None:
    """A blind, curtains, or the sky in the glass."""
    left, top, right, bottom = box
    kind = rng.random()
    if kind < 0.3:
        draw.rectangle((left, top, right, top + (bottom - top) * rng.uniform(0.2, 0.7)), fill=(206, 200, 186))
    elif kind < 0.5:
        fold = (right - left) * 0.22
        for x in (left, right - fold):
            draw.rectangle((x, top, x + fold, bottom), fill=(190, 178, 164))
    else:
        pale = (glass[0] + 46, glass[1] + 50, glass[2] + 54)
        middle = top + (bottom - top) * 0.5
        draw.polygon([(left, top), (left + (right - left) * 0.6, top), (left, middle)], fill=pale)


def _bars(draw: ImageDraw.ImageDraw, style: Style, box: Box) -> None:
    left, top, right, bottom = box
    columns, rows = {
        "sash": (1, 2), "casement": (2, 1), "arch": (2, 2), "wide": (3, 1), "ribbon": (5, 1), "bay": (3, 2),
        "tall": (2, 3), "grid": (4, 4), "slit": (1, 1),
    }[style.window]  # fmt: skip
    for column in range(1, columns):
        x = left + (right - left) * column / columns
        draw.line([(x, top), (x, bottom)], fill=style.trim, width=2)
    for row in range(1, rows):
        y = top + (bottom - top) * row / rows
        draw.line([(left, y), (right, y)], fill=style.trim, width=2)


def _bay_box(draw: ImageDraw.ImageDraw, style: Style, box: Box) -> None:
    """The box of a bay window: lit on one cheek, dark on the other."""
    left, top, right, bottom = box
    cheek = (right - left) * 0.16 + 4
    wall = style.wall
    light = (min(255, wall[0] + 18), min(255, wall[1] + 18), min(255, wall[2] + 18))
    draw.rectangle((left - cheek, top - 9, right + cheek, bottom + 13), fill=light)
    draw.rectangle((right + 3, top - 9, right + cheek, bottom + 13), fill=_dark(wall))
    draw.rectangle((left - cheek - 2, top - 12, right + cheek + 2, top - 8), fill=style.trim)
    draw.rectangle((left - cheek, bottom + 12, right + cheek, bottom + 16), fill=_dark(_dark(wall)))
