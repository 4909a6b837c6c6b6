"""Facades as pictures: wall, floors and roof line; and an atlas of all facades drawn so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from stages.toycity.buildings import Style, building_style, pattern_mask, shade
from stages.toycity.streets import City
from stages.toycity.windows_and_doors import PX_PER_M, Box, Front, draw_ground_floor, draw_window

LEVELS = 5
_ATLAS_LIMIT_PX = 40_000_000


@dataclass(frozen=True)
class Facade:
    """Where the mip levels of a facade are in the atlas: `start`, `columns`, `rows` are int32 (LEVELS,)."""

    start: npt.NDArray[np.int32]
    columns: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]
    height_m: float


class Atlas:
    """Facades, drawn on demand into one flat array so that a frame reads them with one gather.

    Attributes
    ----------
    texels : uint32 (n,)
        RGBA; grows as facades are added.
    """

    def __init__(self, city: City) -> None:
        self._city = city
        self._facades: dict[tuple[int, int, int], Facade] = {}
        self._used = 0
        self.texels: npt.NDArray[np.uint32] = np.zeros(4_000_000, np.uint32)

    def trim(self) -> None:
        """Drop all facades if they take too much memory; call it between frames only."""
        if self._used > _ATLAS_LIMIT_PX:
            self._facades.clear()
            self._used = 0

    def facade(self, block: int, face: int, lot: int, borders: npt.NDArray[np.float64]) -> Facade:
        """The facade of a lot; `borders` are those of all lots of the face."""
        key = (block, face, lot)
        if key not in self._facades:
            building, side = self._city.building(face, lot, len(borders) - 1)
            style = building_style(self._city.seed, block, building)
            self._facades[key] = self._add(draw_facade(style, float(borders[lot + 1] - borders[lot]), side))
        return self._facades[key]

    def _add(self, picture: Image.Image) -> Facade:
        levels = [picture.reduce(2**level) if level else picture for level in range(LEVELS)]
        start = []
        for small in levels:
            texels = np.ascontiguousarray(np.asarray(small)).view(np.uint32).ravel()
            while self._used + texels.size > self.texels.size:
                self.texels = np.concatenate([self.texels, np.zeros_like(self.texels)])
            self.texels[self._used : self._used + texels.size] = texels
            start.append(self._used)
            self._used += texels.size
        columns, rows = np.array([small.size for small in levels], np.int32).T
        return Facade(np.array(start, np.int32), columns, rows, picture.height / PX_PER_M)


def draw_facade(style: Style, width_m: float, side: int) -> Image.Image:
    """Draw a facade as RGBA, `PX_PER_M` pixels per metre, the pavement at its lower edge; alpha 0 is sky.

    Parameters
    ----------
    style : Style
    width_m : float
        Width of the lot.
    side : int
        0 for the main front, 1 for the other street side of a corner building.
    """
    width, height = max(8, round(width_m * PX_PER_M)), round(style.height_m * PX_PER_M)
    rng = np.random.default_rng((style.seed, side))
    roof = height - round((style.height_m - style.roof_m) * PX_PER_M)
    picture = Image.fromarray(_wall(style, width, height, rng))
    front = Front(ImageDraw.Draw(picture), style, width, height, side == 0, rng)
    if style.mural and front.main:
        _draw_mural(front)
    _draw_floors(front)
    draw_ground_floor(front)
    _draw_roof(front, roof)
    if style.fire_escape and front.main:
        _draw_fire_escape(front)
    picture = picture.convert("RGBA")
    picture.putalpha(_silhouette(style, width, height, roof))
    return picture


def _wall(style: Style, width: int, height: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Bare wall with the texture of its material, its pattern and dirt, (height, width, 3)."""
    # A row and a column instead of two grids: far fewer values are computed, with the same result.
    y, x = np.arange(height, dtype=np.int32)[:, None], np.arange(width, dtype=np.int32)[None]
    tone = np.ones((height, width), np.float32)

    def tiles(strength: float, tile_height: int, tile_width: int, spare: int = 1) -> npt.NDArray[np.float32]:
        """Random tones for a grid of tiles."""
        grid = rng.normal(0, strength, (height // tile_height + 1, width // tile_width + spare))
        return grid.astype(np.float32)

    if style.material == "brick":
        shift = (y // 4 % 2) * 5
        tone -= 0.22 * ((y % 4 == 0) | ((x + shift) % 10 == 0))
        tone += tiles(0.09, 4, 5, spare=2)[y // 4, (x + shift) // 10]
    elif style.material == "siding":
        tone -= 0.2 * (y % 5 == 0) - 0.06 * (y % 5 == 1)
    elif style.material == "panel":
        tone -= 0.25 * ((y % 26 == 0) | (x % 40 == 0))
        tone += tiles(0.05, 26, 40)[y // 26, x // 40]
    elif style.material == "tile":
        tone += tiles(0.1, 6, 6)[y // 6, x // 6]
        tone -= 0.12 * ((y % 6 == 0) | (x % 6 == 0))
    elif style.material == "shingle":
        shift = (y // 8 % 2) * 5
        tone -= 0.22 * ((y % 8 == 7) | ((x + shift) % 10 == 0))
    stains = Image.fromarray(rng.normal(0, 1, (height // 24 + 2, width // 24 + 2)).astype(np.float32))
    dirt = np.asarray(stains.resize((width, height), Image.Resampling.BICUBIC))
    tone += 0.05 * dirt + np.float32(0.025) * rng.standard_normal(tone.shape, np.float32)
    tone *= 1.04 - 0.12 * (y / height) ** 4
    base = height - round(style.ground_m * PX_PER_M)
    mask = pattern_mask(style.pattern, width, height, round(style.pattern_m * PX_PER_M), base)
    # The mask picks from a table of two colours, one channel at a time.
    wall = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        first, second = np.float32(style.wall[channel]), np.float32(style.pattern_colour[channel])
        wall[..., channel] = np.clip(tone * np.where(mask, second, first), 0, 255)
    return wall


def _draw_mural(front: Front) -> None:
    """Large shapes painted on the wall; windows are drawn over them."""
    draw, style, width, height, rng = front.draw, front.style, front.width, front.height, front.rng
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


def _draw_floors(front: Front) -> None:
    """The upper floors: a grid of windows, with a ledge and perhaps balconies on each floor."""
    draw, style, width = front.draw, front.style, front.width
    bays = max(1, int(width / PX_PER_M / style.bay_m))
    step, floor = width / bays, style.floor_m * PX_PER_M
    half = step * style.window_width / 2 * (1.35 if style.window in ("wide", "ribbon") else 1.0)
    for level in range(style.floors):
        bottom = front.height - style.ground_m * PX_PER_M - level * floor
        for bay in range(bays):
            centre, sill = (bay + 0.5) * step, bottom - floor * 0.2
            box = (centre - half, sill - floor * style.window_height, centre + half, sill)
            draw_window(front, box)
            if style.balconies and bay % 2 == 0:
                _draw_balcony(draw, style, box)
        draw.line([(0, bottom), (width, bottom)], fill=shade(style.wall, 0.72), width=2)
        if style.material in ("stucco", "brick"):
            draw.line([(0, bottom - 3), (width, bottom - 3)], fill=style.trim, width=2)


def _draw_balcony(draw: ImageDraw.ImageDraw, style: Style, box: Box) -> None:
    left, right, bottom, iron = box[0] - 7, box[2] + 7, box[3] + 5, (46, 46, 50)
    for x in np.arange(left, right, 5.0):
        draw.line([(x, bottom - 14), (x, bottom)], fill=iron)
    draw.rectangle((left, bottom, right, bottom + 4), fill=shade(style.trim, 0.8))
    draw.line([(left, bottom - 15), (right, bottom - 15)], fill=iron, width=2)


def _draw_fire_escape(front: Front) -> None:
    draw, style, iron = front.draw, front.style, (38, 38, 42)
    left, right = front.width * 0.3, front.width * 0.62
    floor = style.floor_m * PX_PER_M
    for level in range(style.floors):
        y = front.height - style.ground_m * PX_PER_M - level * floor - 4
        draw.line([(left, y), (right, y)], fill=iron, width=3)
        draw.line([(left, y - 13), (right, y - 13)], fill=iron)
        for x in np.arange(left, right + 1, 6.0):
            draw.line([(x, y - 13), (x, y)], fill=iron)
        if level + 1 < style.floors:
            start, stop = (left + 6, right - 6) if level % 2 else (right - 6, left + 6)
            draw.line([(start, y), (stop, y - floor)], fill=iron, width=3)


def _draw_roof(front: Front, roof: int) -> None:
    """The top of the facade, drawn above row `roof`."""
    draw, style, width = front.draw, front.style, front.width
    trim, dark = style.trim, shade(style.wall, 0.62)
    if style.roof == "cornice":
        draw.rectangle((0, 0, width, roof), fill=trim)
        draw.rectangle((0, roof - 4, width, roof), fill=shade(trim, 0.6))
        for x in range(2, width, 10):
            draw.rectangle((x, roof - 4, x + 5, roof + 4), fill=shade(trim, 0.85))
    elif style.roof == "gable":
        draw.line([(0, roof), (width / 2, 2), (width, roof)], fill=trim, width=7)
        draw.line([(0, roof), (width, roof)], fill=dark, width=3)
        window = (width / 2 - 8, roof * 0.5, width / 2 + 8, roof * 0.5 + 16)
        draw.ellipse(window, fill=(52, 58, 68), outline=trim, width=2)
    elif style.roof == "mansard":
        draw.rectangle((0, 0, width, roof), fill=(76, 74, 80))
        for y in range(4, roof, 6):
            draw.line([(0, y), (width, y)], fill=(60, 58, 64))
        for x in range(20, width - 12, 46):
            draw.rectangle((x, roof * 0.3, x + 16, roof - 3), fill=(56, 64, 76), outline=trim, width=3)
        draw.rectangle((0, roof - 3, width, roof), fill=trim)
    else:
        draw.rectangle((0, 0, width, 4), fill=trim)
        draw.line([(0, roof), (width, roof)], fill=dark, width=2)
        if style.roof == "stepped":
            gable = (width * 0.3, roof * 0.35, width * 0.7, roof * 0.8)
            draw.rectangle(gable, fill=style.accent, outline=trim, width=2)


def _silhouette(style: Style, width: int, height: int, roof: int) -> Image.Image:
    """Alpha: opaque but for the sky beside the roof."""
    alpha = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(alpha)
    if style.roof == "gable":
        draw.polygon([(0, 0), (width / 2, 0), (0, roof)], fill=0)
        draw.polygon([(width / 2, 0), (width, 0), (width, roof)], fill=0)
    elif style.roof == "mansard":
        draw.polygon([(0, 0), (10, 0), (0, roof - 4)], fill=0)
        draw.polygon([(width, 0), (width - 10, 0), (width, roof - 4)], fill=0)
    elif style.roof == "stepped":
        for share, depth in ((0.12, 0.9), (0.28, 0.45)):
            draw.rectangle((0, 0, width * share, roof * depth), fill=0)
            draw.rectangle((width * (1 - share), 0, width, roof * depth), fill=0)
    return alpha
