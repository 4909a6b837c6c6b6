"""The openings of a facade: windows of ten kinds, shops, garages, stairs, arcades and doors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import ImageDraw, ImageFont

from stages.toycity.buildings import Colour, Style, shade

PX_PER_M = 16
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

_BARS = {
    "sash": (1, 2), "casement": (2, 1), "arch": (2, 2), "wide": (3, 1), "ribbon": (5, 1), "bay": (3, 2),
    "tall": (2, 3), "grid": (4, 4), "slit": (1, 1),
}  # fmt: skip
_RAISED = {"tall": 0.25, "slit": 0.4, "ribbon": -0.3}


@dataclass(frozen=True)
class Front:
    """A facade while it is drawn; `main` is false on the second side of a corner building."""

    draw: ImageDraw.ImageDraw
    style: Style
    width: int
    height: int
    main: bool
    rng: np.random.Generator

    @property
    def ground_top(self) -> int:
        """Row where the ground floor begins."""
        return self.height - round(self.style.ground_m * PX_PER_M)


def draw_window(front: Front, box: Box) -> None:
    """Draw one window of the style's kind into `box`."""
    draw, style, kind = front.draw, front.style, front.style.window
    left, top, right, bottom = box
    top -= (bottom - top) * _RAISED.get(kind, 0.0)
    tone = int(front.rng.integers(44, 96))
    glass = (tone, tone + 8, tone + 18)
    if kind == "round":
        _draw_round_window(draw, style, (left, top, right, bottom), glass)
        return
    if kind == "bay":
        _draw_bay(draw, style, (left, top, right, bottom))
    draw.rectangle((left - 3, top - 3, right + 3, bottom + 3), fill=style.trim)
    if kind == "arch":
        rise = (right - left) / 2
        draw.pieslice((left - 3, top - rise - 3, right + 3, top + rise + 3), 180, 360, fill=style.trim)
        draw.pieslice((left, top - rise, right, top + rise), 180, 360, fill=glass)
    draw.rectangle((left, top, right, bottom), fill=glass)
    _draw_glass(front, (left, top, right, bottom), glass)
    columns, rows = _BARS[kind]
    for column in range(1, columns):
        x = left + (right - left) * column / columns
        draw.line([(x, top), (x, bottom)], fill=style.trim, width=2)
    for row in range(1, rows):
        y = top + (bottom - top) * row / rows
        draw.line([(left, y), (right, y)], fill=style.trim, width=2)
    draw.rectangle((left - 5, bottom + 2, right + 5, bottom + 5), fill=shade(style.trim, 0.72))
    if kind == "casement":
        for x in (left - 11, right + 4):
            draw.rectangle((x, top, x + 7, bottom), fill=style.accent)
            for y in np.arange(top + 2, bottom, 4.0):
                draw.line([(x + 1, y), (x + 6, y)], fill=shade(style.accent, 0.72))


def _draw_round_window(draw: ImageDraw.ImageDraw, style: Style, box: Box, glass: Colour) -> None:
    left, top, right, bottom = box
    radius = min(right - left, bottom - top) / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    draw.ellipse((x - radius - 3, y - radius - 3, x + radius + 3, y + radius + 3), fill=style.trim)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=glass)
    draw.line([(x - radius, y), (x + radius, y)], fill=style.trim, width=2)
    draw.line([(x, y - radius), (x, y + radius)], fill=style.trim, width=2)


def _draw_glass(front: Front, box: Box, glass: Colour) -> None:
    """A blind, curtains, or the sky mirrored in the glass."""
    draw, rng = front.draw, front.rng
    left, top, right, bottom = box
    kind = rng.random()
    if kind < 0.3:
        draw.rectangle((left, top, right, top + (bottom - top) * rng.uniform(0.2, 0.7)), fill=(206, 200, 186))
    elif kind < 0.5:
        fold = (right - left) * 0.22
        for x in (left, right - fold):
            draw.rectangle((x, top, x + fold, bottom), fill=(190, 178, 164))
    else:
        sky = (glass[0] + 46, glass[1] + 50, glass[2] + 54)
        middle = top + (bottom - top) * 0.5
        draw.polygon([(left, top), (left + (right - left) * 0.6, top), (left, middle)], fill=sky)


def _draw_bay(draw: ImageDraw.ImageDraw, style: Style, box: Box) -> None:
    """The box of a bay window, lit on one side and dark on the other."""
    left, top, right, bottom = box
    side, dark = (right - left) * 0.16 + 4, shade(style.wall, 0.72)
    red, green, blue = (min(255, channel + 18) for channel in style.wall)
    draw.rectangle((left - side, top - 9, right + side, bottom + 13), fill=(red, green, blue))
    draw.rectangle((right + 3, top - 9, right + side, bottom + 13), fill=dark)
    draw.rectangle((left - side - 2, top - 12, right + side + 2, top - 8), fill=style.trim)
    draw.rectangle((left - side, bottom + 12, right + side, bottom + 16), fill=shade(dark, 0.72))


def draw_ground_floor(front: Front) -> None:
    """Draw the ground floor at the lower edge of a facade."""
    draw, style, height = front.draw, front.style, front.height
    draw.rectangle((0, height - 9, front.width, height), fill=shade(style.wall, 0.55))
    if style.ground == "shop":
        _draw_shop(front)
    elif style.ground == "garage" and front.main:
        _draw_garage(front)
    elif style.ground == "stairs":
        _draw_stairs(front)
    elif style.ground == "arcade":
        _draw_arcade(front)
    else:
        box = (0, front.ground_top, front.width, height - 9)
        draw.rectangle(box, outline=shade(style.wall, 0.78), width=3)
        _draw_door(front, front.width * 0.5, height)
    if style.blade_sign and front.main:
        _draw_blade_sign(front)


def _draw_shop(front: Front) -> None:
    draw, style, rng = front.draw, front.style, front.rng
    width, height, top = front.width, front.height, front.ground_top
    sign_bottom = top + 17
    sill = height - 10 - int(rng.integers(2, 12))
    draw.rectangle((0, sign_bottom, width, height), fill=shade(style.accent, 0.6))
    door = width * float(rng.choice([0.14, 0.5, 0.86]))
    panes = max(2, round(width / 44))
    for pane in range(panes):
        left, right = width * pane / panes + 3, width * (pane + 1) / panes - 3
        tone = int(rng.integers(50, 110))
        draw.rectangle((left, sign_bottom + 5, right, sill), fill=(tone, tone + 6, tone + 10))
        for _ in range(5):
            x, y = rng.uniform(left, right), rng.uniform(sill - 18, sill)
            goods = tuple(int(v) for v in rng.integers(90, 230, 3))
            draw.rectangle((x, y, min(right, x + 6), sill), fill=goods)
        glare = [(left, sign_bottom + 5), (left + 14, sign_bottom + 5), (left, sill - 10)]
        draw.polygon(glare, fill=(150, 160, 168))
    _draw_door(front, door, height)
    draw.rectangle((0, top, width, sign_bottom), fill=style.accent, outline=style.trim, width=1)
    size = 17
    while size > 7 and draw.textlength(style.sign, font=_font(size)) > width - 10:
        size -= 1
    draw.text((width / 2, top + 9), style.sign, font=_font(size), fill=_ink(style.accent), anchor="mm")
    if rng.random() < 0.55:
        _draw_awning(front, sign_bottom)


def _draw_awning(front: Front, top: int) -> None:
    draw, accent, rng = front.draw, front.style.accent, front.rng
    stripe = int(rng.integers(6, 14))
    second = (232, 228, 216) if rng.random() < 0.6 else accent
    for number, x in enumerate(range(0, front.width, stripe)):
        colour = accent if number % 2 else second
        draw.rectangle((x, top, x + stripe - 1, top + 11), fill=colour)
        draw.pieslice((x, top + 7, x + stripe - 1, top + 16), 0, 180, fill=shade(colour, 0.85))
    draw.line([(0, top + 17), (front.width, top + 17)], fill=(40, 40, 44), width=1)


def _draw_garage(front: Front) -> None:
    draw, style, rng, width, height = front.draw, front.style, front.rng, front.width, front.height
    left = width * 0.08 if rng.random() < 0.5 else width * 0.92 - 46
    colour = style.trim if rng.random() < 0.5 else style.accent
    draw.rectangle((left - 3, height - 42, left + 49, height), fill=shade(style.wall, 0.6))
    draw.rectangle((left, height - 39, left + 46, height), fill=colour)
    rows = int(rng.integers(3, 7))
    for row in range(rows):
        y = height - 39 + 39 * row / rows
        draw.line([(left, y), (left + 46, y)], fill=shade(colour, 0.7))
        if row == 0 or rows > 4:
            for x in (0, 11, 22, 33):
                panel = (left + 3 + x, y + 2, left + 10 + x, y + 39 / rows - 2)
                draw.rectangle(panel, outline=shade(colour, 0.6))
    _draw_door(front, width * 0.75 if left < width / 2 else width * 0.2, height)


def _draw_stairs(front: Front) -> None:
    draw, trim, width, height = front.draw, front.style.trim, front.width, front.height
    centre = width * float(front.rng.choice([0.25, 0.5, 0.75]))
    _draw_door(front, centre, height - 18)
    for step in range(5):
        spread, y, tone = 13 + step * 3, height - 18 + step * 3.6, 190 - step * 14
        draw.rectangle((centre - spread, y, centre + spread, y + 3.6), fill=(tone, tone - 4, tone - 10))
    for x, lean in ((centre - 20, -8), (centre + 20, 8)):
        draw.line([(x, height - 34), (x + lean, height)], fill=(44, 44, 48), width=2)
    for x in np.arange(20, width - 20, 40.0):
        if abs(x + 11 - centre) > 36:
            box = (x, height - 46, x + 22, height - 18)
            draw.rectangle(box, fill=(58, 66, 78), outline=trim, width=3)
            draw.line([(x + 11, height - 46), (x + 11, height - 18)], fill=trim, width=2)


def _draw_arcade(front: Front) -> None:
    draw, height, top, dark = front.draw, front.height, front.ground_top, (46, 44, 48)
    arches = max(2, round(front.width / 48))
    step = front.width / arches
    for arch in range(arches):
        left, right = arch * step + 6, (arch + 1) * step - 6
        rise, middle = (right - left) / 2, (left + right) / 2
        vault = (left, top + 6, right, top + 6 + 2 * rise)
        draw.pieslice(vault, 180, 360, fill=dark, outline=front.style.trim, width=3)
        draw.rectangle((left, top + 6 + rise, right, height), fill=dark)
        draw.rectangle((left + 5, height - 30, right - 5, height), fill=(70, 70, 74))
        draw.rectangle((left + 7, height - 27, middle - 1, height - 2), fill=(96, 104, 110))
        draw.rectangle((middle + 1, height - 27, right - 7, height - 2), fill=(110, 118, 124))


def _draw_door(front: Front, centre: float, bottom: float) -> None:
    draw, style = front.draw, front.style
    draw.rectangle((centre - 11, bottom - 40, centre + 11, bottom), fill=style.trim)
    draw.rectangle((centre - 8, bottom - 32, centre + 8, bottom), fill=shade(style.accent, 0.8))
    draw.rectangle((centre - 8, bottom - 38, centre + 8, bottom - 34), fill=(88, 98, 110))
    draw.rectangle((centre - 5, bottom - 28, centre + 5, bottom - 16), fill=shade(style.accent, 0.5))
    draw.ellipse((centre + 4, bottom - 15, centre + 7, bottom - 12), fill=(210, 180, 90))


def _draw_blade_sign(front: Front) -> None:
    """A tall sign with one letter below the other."""
    draw, style = front.draw, front.style
    letters = style.sign.split()[-1][:6]
    x, bottom = front.width * 0.88, front.ground_top - 4
    top = bottom - 15 * len(letters)
    draw.rectangle((x - 9, top - 4, x + 9, bottom), fill=style.accent, outline=style.trim, width=2)
    for number, letter in enumerate(letters):
        place = (x, top + 6 + number * 15)
        draw.text(place, letter, font=_font(14), fill=_ink(style.accent), anchor="mm")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _ink(background: Colour) -> Colour:
    return (240, 236, 222) if sum(background) < 400 else (34, 32, 36)
