"""What a building shows at eye level: shops with signs and awnings, garages, stairs, arcades."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import ImageDraw, ImageFont

from stages.toycity.style import Colour, Style

_PX = 16


def draw_ground_floor(
    draw: ImageDraw.ImageDraw, style: Style, width: int, height: int, part: int, rng: np.random.Generator
) -> None:
    """The ground floor at the lower edge of a facade picture."""
    top = height - round(style.ground_m * _PX)
    base = _dark(style.wall, 0.78)
    draw.rectangle((0, height - 9, width, height), fill=_dark(style.wall, 0.55))
    if style.ground == "shop":
        _shop(draw, style, width, height, top, rng)
    elif style.ground == "garage" and part == 0:
        _garage(draw, style, width, height, rng)
    elif style.ground == "stairs":
        _stairs(draw, style, width, height, rng)
    elif style.ground == "arcade":
        _arcade(draw, style, width, height, top)
    else:
        draw.rectangle((0, top, width, height - 9), outline=base, width=3)
        _door(draw, style, width * 0.5, height)
    if style.blade_sign and part == 0:
        _blade(draw, style, width, top)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _dark(colour: Colour, factor: float) -> Colour:
    return round(colour[0] * factor), round(colour[1] * factor), round(colour[2] * factor)


def _text(
    draw: ImageDraw.ImageDraw, centre: tuple[float, float], text: str, room: float, size: int, ink: Colour
) -> None:
    """Text in the largest size up to `size` that fits `room` pixels."""
    while size > 7 and draw.textlength(text, font=_font(size)) > room:
        size -= 1
    draw.text(centre, text, font=_font(size), fill=ink, anchor="mm")


def _ink(colour: Colour) -> Colour:
    return (240, 236, 222) if sum(colour) < 400 else (34, 32, 36)


def _shop(
    draw: ImageDraw.ImageDraw, style: Style, width: int, height: int, top: int, rng: np.random.Generator
) -> None:
    sign_bottom = top + 17
    sill = height - 10 - int(rng.integers(2, 12))
    draw.rectangle((0, sign_bottom, width, height), fill=_dark(style.accent, 0.6))
    door = width * float(rng.choice([0.14, 0.5, 0.86]))
    panes = max(2, round(width / 44))
    for pane in range(panes):
        left, right = width * pane / panes + 3, width * (pane + 1) / panes - 3
        tone = int(rng.integers(50, 110))
        draw.rectangle((left, sign_bottom + 5, right, sill), fill=(tone, tone + 6, tone + 10))
        for _ in range(5):
            x, y = rng.uniform(left, right), rng.uniform(sill - 18, sill)
            ware = tuple(int(v) for v in rng.integers(90, 230, 3))
            draw.rectangle((x, y, min(right, x + 6), sill), fill=ware)
        draw.polygon(
            [(left, sign_bottom + 5), (left + 14, sign_bottom + 5), (left, sill - 10)], fill=(150, 160, 168)
        )
    _door(draw, style, door, height)
    draw.rectangle((0, top, width, sign_bottom), fill=style.accent, outline=style.trim, width=1)
    _text(draw, (width / 2, top + 9), style.sign, width - 10, 17, _ink(style.accent))
    if rng.random() < 0.55:
        _awning(draw, style, width, sign_bottom, rng)


def _awning(draw: ImageDraw.ImageDraw, style: Style, width: int, top: int, rng: np.random.Generator) -> None:
    stripe = int(rng.integers(6, 14))
    second = (232, 228, 216) if rng.random() < 0.6 else style.accent
    for number, x in enumerate(range(0, width, stripe)):
        colour = style.accent if number % 2 else second
        draw.rectangle((x, top, x + stripe - 1, top + 11), fill=colour)
        draw.pieslice((x, top + 7, x + stripe - 1, top + 16), 0, 180, fill=_dark(colour, 0.85))
    draw.line([(0, top + 17), (width, top + 17)], fill=(40, 40, 44), width=1)


def _garage(
    draw: ImageDraw.ImageDraw, style: Style, width: int, height: int, rng: np.random.Generator
) -> None:
    left = width * 0.08 if rng.random() < 0.5 else width * 0.92 - 46
    colour = style.trim if rng.random() < 0.5 else style.accent
    draw.rectangle((left - 3, height - 42, left + 49, height), fill=_dark(style.wall, 0.6))
    draw.rectangle((left, height - 39, left + 46, height), fill=colour)
    rows = int(rng.integers(3, 7))
    for row in range(rows):
        y = height - 39 + 39 * row / rows
        draw.line([(left, y), (left + 46, y)], fill=_dark(colour, 0.7))
        if row == 0 or rows > 4:
            for x in range(4):
                draw.rectangle(
                    (left + 3 + x * 11, y + 2, left + 10 + x * 11, y + 39 / rows - 2),
                    outline=_dark(colour, 0.6),
                )
    _door(draw, style, width * 0.75 if left < width / 2 else width * 0.2, height)


def _stairs(
    draw: ImageDraw.ImageDraw, style: Style, width: int, height: int, rng: np.random.Generator
) -> None:
    centre = width * float(rng.choice([0.25, 0.5, 0.75]))
    _door(draw, style, centre, height - 18)
    for step in range(5):
        spread = 13 + step * 3
        y = height - 18 + step * 3.6
        tone = 190 - step * 14
        draw.rectangle((centre - spread, y, centre + spread, y + 3.6), fill=(tone, tone - 4, tone - 10))
    for x in (centre - 20, centre + 20):
        draw.line([(x, height - 34), (x + (8 if x > centre else -8), height)], fill=(44, 44, 48), width=2)
    for x in np.arange(20, width - 20, 40.0):
        if abs(x + 11 - centre) > 36:
            draw.rectangle(
                (x, height - 46, x + 22, height - 18), fill=(58, 66, 78), outline=style.trim, width=3
            )
            draw.line([(x + 11, height - 46), (x + 11, height - 18)], fill=style.trim, width=2)


def _arcade(draw: ImageDraw.ImageDraw, style: Style, width: int, height: int, top: int) -> None:
    arches = max(2, round(width / 48))
    step = width / arches
    for arch in range(arches):
        left, right = arch * step + 6, (arch + 1) * step - 6
        rise = (right - left) / 2
        draw.pieslice(
            (left, top + 6, right, top + 6 + 2 * rise),
            180,
            360,
            fill=(46, 44, 48),
            outline=style.trim,
            width=3,
        )
        draw.rectangle((left, top + 6 + rise, right, height), fill=(46, 44, 48))
        draw.rectangle((left + 5, height - 30, right - 5, height), fill=(70, 70, 74))
        draw.rectangle((left + 7, height - 27, (left + right) / 2 - 1, height - 2), fill=(96, 104, 110))
        draw.rectangle(((left + right) / 2 + 1, height - 27, right - 7, height - 2), fill=(110, 118, 124))


def _door(draw: ImageDraw.ImageDraw, style: Style, centre: float, bottom: float) -> None:
    draw.rectangle((centre - 11, bottom - 40, centre + 11, bottom), fill=style.trim)
    draw.rectangle((centre - 8, bottom - 32, centre + 8, bottom), fill=_dark(style.accent, 0.8))
    draw.rectangle((centre - 8, bottom - 38, centre + 8, bottom - 34), fill=(88, 98, 110))
    draw.rectangle((centre - 5, bottom - 28, centre + 5, bottom - 16), fill=_dark(style.accent, 0.5))
    draw.ellipse((centre + 4, bottom - 15, centre + 7, bottom - 12), fill=(210, 180, 90))


def _blade(draw: ImageDraw.ImageDraw, style: Style, width: int, top: int) -> None:
    """A tall sign with the letters one below the other."""
    letters = style.sign.split()[-1][:6]
    x, bottom = width * 0.88, top - 4
    height = 15 * len(letters)
    draw.rectangle(
        (x - 9, bottom - height - 4, x + 9, bottom), fill=style.accent, outline=style.trim, width=2
    )
    for number, letter in enumerate(letters):
        draw.text(
            (x, bottom - height + 6 + number * 15),
            letter,
            font=_font(14),
            fill=_ink(style.accent),
            anchor="mm",
        )
