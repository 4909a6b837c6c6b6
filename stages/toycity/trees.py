"""Street trees as pictures with alpha, a few kinds for a whole city."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_SIDE_PX = 256
_KINDS = (("round", (70, 104, 54)), ("tall", (58, 88, 56)), ("airy", (104, 124, 62)), ("palm", (88, 116, 58)),
          ("rust", (142, 96, 50)))  # fmt: skip


def tree_sprites(seed: int) -> list[Image.Image]:
    """One RGBA picture per kind, trunk foot at the middle of the lower edge."""
    return [
        _tree(kind, colour, np.random.default_rng((seed, 80, i))) for i, (kind, colour) in enumerate(_KINDS)
    ]


def _tree(kind: str, colour: tuple[int, int, int], rng: np.random.Generator) -> Image.Image:
    picture = Image.new("RGBA", (_SIDE_PX, _SIDE_PX), (*colour, 0))
    draw = ImageDraw.Draw(picture)
    bark = (84, 68, 54, 255)
    if kind == "palm":
        _palm(draw, colour, bark, rng)
        return picture
    draw.polygon([(122, 256), (134, 256), (131, 120), (125, 120)], fill=bark)
    for x in (86, 170):
        draw.line([(128, 176), (x, 110)], fill=bark, width=4)
    spread = {"round": (80, 66), "tall": (46, 92), "airy": (88, 72), "rust": (70, 60)}[kind]
    leaves = 420 if kind == "airy" else 700
    for _ in range(leaves):
        angle, reach = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1))
        x = 128 + spread[0] * reach * np.cos(angle)
        y = 96 + spread[1] * reach * np.sin(angle)
        size = rng.uniform(4, 11) * (0.7 if kind == "airy" else 1.0)
        # Lit from above: leaves darken towards the lower edge of the crown.
        tone = 1.22 - 0.55 * (y - 96 + spread[1]) / (2 * spread[1]) + rng.normal(0, 0.12)
        leaf = tuple(int(np.clip(channel * tone, 0, 255)) for channel in colour)
        draw.ellipse((x - size, y - size * 0.8, x + size, y + size * 0.8), fill=(*leaf, 255))
    return picture.filter(ImageFilter.GaussianBlur(0.6))


def _palm(
    draw: ImageDraw.ImageDraw,
    colour: tuple[int, int, int],
    bark: tuple[int, int, int, int],
    rng: np.random.Generator,
) -> None:
    draw.polygon([(123, 256), (133, 256), (131, 60), (126, 60)], fill=bark)
    for angle in np.linspace(-0.35 * np.pi, 1.35 * np.pi, 15):
        length = rng.uniform(48, 70)
        for step in np.linspace(0.15, 1.0, 14):
            x = 128 - length * step * np.cos(angle)
            y = 58 - length * step * np.sin(angle) * 0.8 + 26 * step**2
            tone = rng.uniform(0.7, 1.2)
            leaf = tuple(int(np.clip(channel * tone, 0, 255)) for channel in colour)
            draw.line([(x, y), (x + rng.uniform(-8, 8), y + 13)], fill=(*leaf, 255), width=3)
