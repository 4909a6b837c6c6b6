"""A building's front as a picture: walls, windows, roof line; alpha 0 is sky."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from stages.toycity.ground_floor import draw_ground_floor
from stages.toycity.patterns import pattern_mask
from stages.toycity.style import Colour, Style
from stages.toycity.windows import draw_window

PX_PER_M = 16


def draw_facade(style: Style, width_m: float, part: int) -> Image.Image:
    """The front, RGBA, `PX_PER_M` pixels per metre, the pavement at its lower edge.

    Parameters
    ----------
    style : Style
    width_m : float
        Width of the lot.
    part : int
        0 for the main front; 1 for the side of a corner building that faces the other street.
    """
    width, height = max(8, round(width_m * PX_PER_M)), round(style.height_m * PX_PER_M)
    rng = np.random.default_rng((style.seed, part))
    roof = height - round((style.height_m - style.top_m) * PX_PER_M)
    picture = Image.fromarray(_wall(style, width, height, rng))
    draw = ImageDraw.Draw(picture)
    if style.mural and part == 0:
        _mural(draw, style, width, height, rng)
    _floors(draw, style, width, height, rng)
    draw_ground_floor(draw, style, width, height, part, rng)
    _top(draw, style, width, roof)
    if style.fire_escape and part == 0:
        _fire_escape(draw, style, width, height)
    picture = picture.convert("RGBA")
    picture.putalpha(_silhouette(style, width, height, roof))
    return picture


def shade(colour: Colour, factor: float) -> Colour:
    """The colour, lighter or darker."""
    red, green, blue = (min(255, max(0, round(channel * factor))) for channel in colour)
    return red, green, blue


def _wall(style: Style, width: int, height: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Bare wall with the grain of its material and the dirt of its years."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int32)
    base = height - round(style.ground_m * PX_PER_M)
    tone = np.ones((height, width), np.float32)
    if style.material == "brick":
        row = y // 4
        tone -= 0.22 * ((y % 4 == 0) | ((x + (row % 2) * 5) % 10 == 0))
        tone += rng.normal(0, 0.09, (height // 4 + 1, width // 5 + 2))[row, (x + (row % 2) * 5) // 10].astype(
            np.float32
        )
    elif style.material == "siding":
        tone -= 0.2 * (y % 5 == 0) - 0.06 * (y % 5 == 1)
    elif style.material == "panel":
        tone -= 0.25 * ((y % 26 == 0) | (x % 40 == 0))
        tone += rng.normal(0, 0.05, (height // 26 + 1, width // 40 + 1))[y // 26, x // 40].astype(np.float32)
    elif style.material == "tile":
        tone += rng.normal(0, 0.1, (height // 6 + 1, width // 6 + 1))[y // 6, x // 6].astype(np.float32)
        tone -= 0.12 * ((y % 6 == 0) | (x % 6 == 0))
    elif style.material == "shingle":
        shift = (y // 8 % 2) * 5
        tone -= 0.22 * ((y % 8 == 7) | ((x + shift) % 10 == 0))
    small = rng.normal(0, 1, (height // 24 + 2, width // 24 + 2)).astype(np.float32)
    dirt = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    tone += 0.05 * dirt + np.float32(0.025) * rng.standard_normal(tone.shape, np.float32)
    tone *= 1.04 - 0.12 * (y / height) ** 4
    second = pattern_mask(style.pattern, width, height, round(style.pitch_m * PX_PER_M), base)
    colour = np.where(second[..., None], np.array(style.second, np.float32), np.array(style.wall, np.float32))
    return np.clip(tone[..., None] * colour, 0, 255).astype(np.uint8)


def _mural(
    draw: ImageDraw.ImageDraw, style: Style, width: int, height: int, rng: np.random.Generator
) -> None:
    """A painted wall, under the windows."""
    colours = [style.accent, style.trim, shade(style.accent, 1.5), shade(style.wall, 0.6)]
    for _ in range(9):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        size = int(rng.integers(16, 60))
        colour = colours[int(rng.integers(4))]
        if style.mural == 1:
            draw.ellipse((x - size, y - size, x + size, y + size), fill=colour, outline=style.trim, width=3)
        elif style.mural == 2:
            draw.polygon([(x, y - size), (x + size, y + size), (x - size, y + size)], fill=colour)
        elif style.mural == 3:
            draw.rectangle((0, y, width, y + size // 3), fill=colour)
        else:
            draw.line([(x, 0), (x + height // 2, height)], fill=colour, width=size // 3)


def _floors(
    draw: ImageDraw.ImageDraw, style: Style, width: int, height: int, rng: np.random.Generator
) -> None:
    """The upper floors: a grid of windows, each floor with its line or balcony."""
    bays = max(1, int(width / PX_PER_M / style.bay_m))
    step = width / bays
    floor = style.floor_m * PX_PER_M
    base = height - style.ground_m * PX_PER_M
    for level in range(style.floors):
        bottom = base - level * floor
        for bay in range(bays):
            centre = (bay + 0.5) * step
            half = step * style.window_width / 2 * (1.35 if style.window in ("wide", "ribbon") else 1.0)
            low = bottom - floor * 0.2
            box = (centre - half, low - floor * style.window_height, centre + half, low)
            draw_window(draw, style, box, rng)
            if style.balconies and bay % 2 == 0:
                _balcony(draw, style, box)
        draw.line([(0, bottom), (width, bottom)], fill=shade(style.wall, 0.72), width=2)
        if style.material in ("stucco", "brick"):
            draw.line([(0, bottom - 3), (width, bottom - 3)], fill=style.trim, width=2)


def _balcony(draw: ImageDraw.ImageDraw, style: Style, box: tuple[float, float, float, float]) -> None:
    left, right, bottom = box[0] - 7, box[2] + 7, box[3] + 5
    iron = (46, 46, 50)
    for x in np.arange(left, right, 5.0):
        draw.line([(x, bottom - 14), (x, bottom)], fill=iron)
    draw.rectangle((left, bottom, right, bottom + 4), fill=shade(style.trim, 0.8))
    draw.line([(left, bottom - 15), (right, bottom - 15)], fill=iron, width=2)


def _fire_escape(draw: ImageDraw.ImageDraw, style: Style, width: int, height: int) -> None:
    left, right = width * 0.3, width * 0.62
    iron = (38, 38, 42)
    floor = style.floor_m * PX_PER_M
    base = height - style.ground_m * PX_PER_M
    for level in range(style.floors):
        y = base - level * floor - 4
        draw.line([(left, y), (right, y)], fill=iron, width=3)
        draw.line([(left, y - 13), (right, y - 13)], fill=iron)
        for x in np.arange(left, right + 1, 6.0):
            draw.line([(x, y - 13), (x, y)], fill=iron)
        if level + 1 < style.floors:
            ends = (left + 6, right - 6) if level % 2 else (right - 6, left + 6)
            draw.line([(ends[0], y), (ends[1], y - floor)], fill=iron, width=3)


def _top(draw: ImageDraw.ImageDraw, style: Style, width: int, roof: int) -> None:
    """What crowns the wall, drawn into the band above `roof`."""
    trim, dark = style.trim, shade(style.wall, 0.62)
    if style.top == "cornice":
        draw.rectangle((0, 0, width, roof), fill=trim)
        draw.rectangle((0, roof - 4, width, roof), fill=shade(trim, 0.6))
        for x in range(2, width, 10):
            draw.rectangle((x, roof - 4, x + 5, roof + 4), fill=shade(trim, 0.85))
    elif style.top == "gable":
        draw.line([(0, roof), (width / 2, 2), (width, roof)], fill=trim, width=7)
        draw.line([(0, roof), (width, roof)], fill=dark, width=3)
        draw.ellipse(
            (width / 2 - 8, roof * 0.5, width / 2 + 8, roof * 0.5 + 16),
            fill=(52, 58, 68),
            outline=trim,
            width=2,
        )
    elif style.top == "mansard":
        draw.rectangle((0, 0, width, roof), fill=(76, 74, 80))
        for y in range(4, roof, 6):
            draw.line([(0, y), (width, y)], fill=(60, 58, 64))
        for x in range(20, width - 12, 46):
            draw.rectangle((x, roof * 0.3, x + 16, roof - 3), fill=(56, 64, 76), outline=trim, width=3)
        draw.rectangle((0, roof - 3, width, roof), fill=trim)
    else:
        draw.rectangle((0, 0, width, 4), fill=trim)
        draw.line([(0, roof), (width, roof)], fill=dark, width=2)
        if style.top == "stepped":
            draw.rectangle(
                (width * 0.3, roof * 0.35, width * 0.7, roof * 0.8), fill=style.accent, outline=trim, width=2
            )


def _silhouette(style: Style, width: int, height: int, roof: int) -> Image.Image:
    """Alpha: the wall and the shape of its top."""
    alpha = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(alpha)
    if style.top == "gable":
        draw.polygon([(0, 0), (width / 2, 0), (0, roof)], fill=0)
        draw.polygon([(width / 2, 0), (width, 0), (width, roof)], fill=0)
    elif style.top == "mansard":
        draw.polygon([(0, 0), (10, 0), (0, roof - 4)], fill=0)
        draw.polygon([(width, 0), (width - 10, 0), (width, roof - 4)], fill=0)
    elif style.top == "stepped":
        for share, depth in ((0.12, 0.9), (0.28, 0.45)):
            draw.rectangle((0, 0, width * share, roof * depth), fill=0)
            draw.rectangle((width * (1 - share), 0, width, roof * depth), fill=0)
    return alpha
