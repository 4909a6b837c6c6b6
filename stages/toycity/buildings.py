"""How each building looks: materials, patterns, colours and shapes, chosen from its own seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Colour = tuple[int, int, int]

_WALL_COLOURS: tuple[Colour, ...] = (
    (214, 204, 184), (196, 178, 150), (176, 166, 156), (222, 214, 204), (168, 120, 98), (150, 96, 78),
    (186, 194, 190), (150, 162, 168), (204, 186, 140), (178, 190, 168), (206, 170, 150), (132, 136, 142),
    (226, 222, 214), (160, 148, 128), (190, 200, 208), (116, 104, 98), (208, 150, 120), (142, 158, 140),
)  # fmt: skip
_PATTERN_COLOURS: tuple[Colour, ...] = (
    (236, 230, 216), (96, 62, 50), (70, 78, 86), (196, 96, 70), (84, 118, 132), (120, 138, 96),
    (218, 184, 110), (150, 70, 78), (58, 52, 50), (170, 150, 190),
)  # fmt: skip
_ACCENTS: tuple[Colour, ...] = (
    (152, 44, 40), (36, 74, 112), (40, 96, 70), (214, 160, 44), (92, 56, 100), (40, 44, 50), (186, 92, 40),
    (34, 110, 118), (228, 224, 212), (120, 70, 44),
)  # fmt: skip
_SIGN_NAMES = (
    "GOLDEN", "MISSION", "BAY", "SUNSET", "EL", "CASA", "STAR", "LUCKY", "ROSA", "BLUE", "OLD", "TWIN", "FOG",
    "CORONA", "PIER", "MOON",
)  # fmt: skip
_SIGN_TRADES = (
    "CAFE", "BOOKS", "MARKET", "BAR", "LAUNDRY", "TAQUERIA", "HOTEL", "BAKERY", "RECORDS", "BIKES", "PIZZA",
    "FLOWERS", "DONUTS", "TAILOR", "NOODLES", "SHOES",
)  # fmt: skip
_WINDOWS = ("sash", "casement", "arch", "wide", "ribbon", "bay", "round", "tall", "grid", "slit")
_MATERIALS = ("stucco", "brick", "siding", "panel", "tile", "shingle")
_ROOFS = {"cornice": 0.9, "gable": 2.8, "parapet": 1.0, "flat": 0.35, "stepped": 1.8, "mansard": 2.6}
_GROUND_FLOORS = ("shop", "shop", "garage", "stairs", "arcade", "plain")

# Each pattern maps (x, y, repeat), in pixels, to where a wall shows its second colour.
_PATTERNS: dict[str, Callable[[npt.NDArray[np.int32], npt.NDArray[np.int32], int], Any]] = {
    "plain": lambda x, y, p: np.zeros(x.shape, bool),
    "stripes": lambda x, y, p: x % p < p // 2,
    "bands": lambda x, y, p: y % p < p // 2,
    "checker": lambda x, y, p: (x // p + y // p) % 2 == 0,
    "diamonds": lambda x, y, p: np.abs(x % (2 * p) - p) + np.abs(y % (2 * p) - p) < p,
    "dots": lambda x, y, p: (x % p - p / 2) ** 2 + (y % p - p / 2) ** 2 < (0.32 * p) ** 2,
    "chevrons": lambda x, y, p: (y + np.abs(x % (2 * p) - p)) % p < p // 2,
    "timber": lambda x, y, p: _timber(x, x % (2 * p), y % (2 * p), 2 * p),
    "quoins": lambda x, y, p: np.minimum(x, x.max() - x) < np.where((y // 10) % 2 == 0, 20, 12),
    "lattice": lambda x, y, p: ((x + y) % p < 5) | ((x - y) % p < 5),
    "waves": lambda x, y, p: (y + (0.5 * p * np.sin(x / p * 2.0)).astype(int)) % p < p // 3,
}
PATTERNS = tuple(_PATTERNS)


@dataclass(frozen=True)
class Style:
    """The look of one building."""

    seed: int
    material: str
    pattern: str
    pattern_m: float
    pattern_colour: Colour
    wall: Colour
    trim: Colour
    accent: Colour
    floors: int
    floor_m: float
    ground_m: float
    window: str
    bay_m: float
    window_width: float
    window_height: float
    roof: str
    roof_m: float
    ground: str
    sign: str
    blade_sign: bool
    fire_escape: bool
    balconies: bool
    mural: int

    @property
    def height_m(self) -> float:
        """Height from the pavement to the highest point."""
        return self.ground_m + self.floors * self.floor_m + self.roof_m


def building_style(city_seed: int, block: int, building: int) -> Style:
    """The style of a building, a function of these three numbers alone."""
    rng = np.random.default_rng((city_seed, 30, block, building))

    def pick(options: Sequence[str]) -> str:
        return options[int(rng.integers(len(options)))]

    def pick_colour(options: Sequence[Colour]) -> Colour:
        return options[int(rng.integers(len(options)))]

    # The order of the draws decides every look: a new choice goes to the end.
    window, ground, roof = pick(_WINDOWS), pick(_GROUND_FLOORS), pick(tuple(_ROOFS))
    wall = pick_colour(_WALL_COLOURS)
    red, green, blue = (min(255, max(0, channel + int(rng.integers(-14, 15)))) for channel in wall)
    return Style(
        seed=int(rng.integers(1 << 30)),
        material=pick(_MATERIALS),
        pattern="plain" if rng.random() < 0.3 else pick(PATTERNS),
        pattern_m=float(rng.uniform(0.9, 2.6)),
        pattern_colour=pick_colour(_PATTERN_COLOURS),
        wall=(red, green, blue),
        trim=pick_colour(_ACCENTS) if rng.random() < 0.35 else (232, 228, 218),
        accent=pick_colour(_ACCENTS),
        floors=int(rng.choice([1, 1, 2, 2, 3, 3, 4, 5])),
        floor_m=float(rng.uniform(2.9, 3.6)),
        ground_m=float(rng.uniform(3.4, 4.4)),
        window=window,
        bay_m=float(rng.uniform(1.9, 5.2)) if window != "slit" else float(rng.uniform(1.2, 1.8)),
        window_width=float(rng.uniform(0.32, 0.72)),
        window_height=float(rng.uniform(0.38, 0.7)),
        roof=roof,
        roof_m=_ROOFS[roof],
        ground=ground,
        sign=f"{pick(_SIGN_NAMES)} {pick(_SIGN_TRADES)}" if rng.random() < 0.6 else pick(_SIGN_TRADES),
        blade_sign=bool(rng.random() < 0.3),
        fire_escape=bool(rng.random() < 0.2),
        balconies=bool(rng.random() < 0.22),
        mural=int(rng.integers(1, 5)) if rng.random() < 0.16 else 0,
    )


def pattern_mask(name: str, width: int, height: int, repeat_px: int, base: int) -> npt.NDArray[np.bool_]:
    """Where a wall shows its second colour, bool (height, width).

    Parameters
    ----------
    name : str
        One of `PATTERNS`.
    repeat_px : int
        Size of one repeat.
    base : int
        Row where the ground floor begins: the pattern starts there.
    """
    # A row and a column instead of two grids: most patterns then compute far fewer values.
    x = np.arange(width, dtype=np.int32)[None]
    y = np.int32(base) - np.arange(height, dtype=np.int32)[:, None]
    return np.broadcast_to(_PATTERNS[name](x, y, repeat_px), (height, width))


def _timber(x: npt.NDArray[np.int32], across: Any, up: Any, span: int) -> Any:
    """Beams and posts, braced by a diagonal that changes its direction from field to field."""
    rising = (np.abs(across - up) < 4) & ((x // span) % 2 == 0)
    falling = (np.abs(across + up - span) < 4) & ((x // span) % 2 == 1)
    return (across < 6) | (up < 6) | rising | falling


def shade(colour: Colour, factor: float) -> Colour:
    """A lighter or darker colour."""
    red, green, blue = (min(255, max(0, round(channel * factor))) for channel in colour)
    return red, green, blue
