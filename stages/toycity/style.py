"""What a building looks like, before a pixel is drawn: every choice from its own seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.toycity.patterns import PATTERNS

Colour = tuple[int, int, int]

_WALLS: tuple[Colour, ...] = (
    (214, 204, 184), (196, 178, 150), (176, 166, 156), (222, 214, 204), (168, 120, 98), (150, 96, 78),
    (186, 194, 190), (150, 162, 168), (204, 186, 140), (178, 190, 168), (206, 170, 150), (132, 136, 142),
    (226, 222, 214), (160, 148, 128), (190, 200, 208), (116, 104, 98), (208, 150, 120), (142, 158, 140),
)  # fmt: skip
_SECONDS: tuple[Colour, ...] = (
    (236, 230, 216), (96, 62, 50), (70, 78, 86), (196, 96, 70), (84, 118, 132), (120, 138, 96),
    (218, 184, 110), (150, 70, 78), (58, 52, 50), (170, 150, 190),
)  # fmt: skip
_ACCENTS: tuple[Colour, ...] = (
    (152, 44, 40), (36, 74, 112), (40, 96, 70), (214, 160, 44), (92, 56, 100), (40, 44, 50), (186, 92, 40),
    (34, 110, 118), (228, 224, 212), (120, 70, 44),
)  # fmt: skip
_FIRST = ("GOLDEN", "MISSION", "BAY", "SUNSET", "EL", "CASA", "STAR", "LUCKY", "ROSA", "BLUE", "OLD", "TWIN",
          "FOG", "CORONA", "PIER", "MOON")  # fmt: skip
_TRADE = ("CAFE", "BOOKS", "MARKET", "BAR", "LAUNDRY", "TAQUERIA", "HOTEL", "BAKERY", "RECORDS", "BIKES",
          "PIZZA", "FLOWERS", "DONUTS", "TAILOR", "NOODLES", "SHOES")  # fmt: skip

WINDOWS = ("sash", "casement", "arch", "wide", "ribbon", "bay", "round", "tall", "grid", "slit")
WALLS = ("stucco", "brick", "siding", "panel", "tile", "shingle")
TOPS = ("cornice", "gable", "parapet", "flat", "stepped", "mansard")
GROUNDS = ("shop", "shop", "garage", "stairs", "arcade", "plain")


@dataclass(frozen=True)
class Style:
    """The look of one building; lengths in metres."""

    seed: int
    material: str
    pattern: str
    pitch_m: float
    second: Colour
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
    top: str
    top_m: float
    ground: str
    sign: str
    blade_sign: bool
    fire_escape: bool
    balconies: bool
    mural: int

    @property
    def height_m(self) -> float:
        """From the pavement to the highest point."""
        return self.ground_m + self.floors * self.floor_m + self.top_m


def building_style(city_seed: int, block: int, building: int) -> Style:
    """The style of one building of one block, a function of these three numbers alone."""
    rng = np.random.default_rng((city_seed, 30, block, building))

    def pick(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    window = pick(WINDOWS)
    ground = pick(GROUNDS)
    top = pick(TOPS)
    wall = _WALLS[int(rng.integers(len(_WALLS)))]
    red, green, blue = (_byte(channel + int(rng.integers(-14, 15))) for channel in wall)
    return Style(
        seed=int(rng.integers(1 << 30)),
        material=pick(WALLS),
        pattern="plain" if rng.random() < 0.3 else pick(PATTERNS),
        pitch_m=float(rng.uniform(0.9, 2.6)),
        second=_SECONDS[int(rng.integers(len(_SECONDS)))],
        wall=(red, green, blue),
        trim=_ACCENTS[int(rng.integers(len(_ACCENTS)))] if rng.random() < 0.35 else (232, 228, 218),
        accent=_ACCENTS[int(rng.integers(len(_ACCENTS)))],
        floors=int(rng.choice([1, 1, 2, 2, 3, 3, 4, 5])),
        floor_m=float(rng.uniform(2.9, 3.6)),
        ground_m=float(rng.uniform(3.4, 4.4)),
        window=window,
        bay_m=float(rng.uniform(1.9, 5.2)) if window != "slit" else float(rng.uniform(1.2, 1.8)),
        window_width=float(rng.uniform(0.32, 0.72)),
        window_height=float(rng.uniform(0.38, 0.7)),
        top=top,
        top_m={"cornice": 0.9, "gable": 2.8, "parapet": 1.0, "flat": 0.35, "stepped": 1.8, "mansard": 2.6}[
            top
        ],
        ground=ground,
        sign=f"{pick(_FIRST)} {pick(_TRADE)}" if rng.random() < 0.6 else pick(_TRADE),
        blade_sign=bool(rng.random() < 0.3),
        fire_escape=bool(rng.random() < 0.2),
        balconies=bool(rng.random() < 0.22),
        mural=int(rng.integers(1, 5)) if rng.random() < 0.16 else 0,
    )


def _byte(value: float) -> int:
    return int(min(255, max(0, value)))
