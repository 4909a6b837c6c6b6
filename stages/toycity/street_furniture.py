"""Trees and lamps along the streets; they are drawn together with the cars, the far objects first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from stages.toycity.buildings import Colour
from stages.toycity.camera import Camera, Day, Floats
from stages.toycity.cars import Car, Traffic, draw_car, point_before
from stages.toycity.streets import PAVEMENT_M, City, Shot

_SIGHT_M = 70.0
_CAR_SIGHT_M = 55.0
_LAMP_M = 6.5
_SPRITE_PX = 256
_BARK = (84, 68, 54, 255)
_TREES: dict[str, Colour] = {
    "round": (70, 104, 54), "tall": (58, 88, 56), "airy": (104, 124, 62), "palm": (88, 116, 58),
    "rust": (142, 96, 50),
}  # fmt: skip
_CROWNS = {"round": (80, 66), "tall": (46, 92), "airy": (88, 72), "rust": (70, 60)}


@dataclass(frozen=True)
class _Tree:
    """A tree at local (x_m, y_m); `kind` is the index of its sprite."""

    x_m: float
    y_m: float
    height_m: float
    kind: int


@dataclass(frozen=True)
class _Lamp:
    """A street lamp that leans from the kerb of a face over the road."""

    x_m: float
    y_m: float
    face: int


_Object = _Tree | _Lamp | Car


class StreetFurniture:
    """Trees, lamps and cars of a city."""

    def __init__(self, city: City) -> None:
        self._city = city
        self._traffic = Traffic(city)
        self._sprites = [
            _tree_sprite(kind, np.random.default_rng((city.seed, 80, number)))
            for number, kind in enumerate(_TREES)
        ]
        self._fixed: dict[tuple[int, int], list[_Tree | _Lamp]] = {}

    def draw(self, picture: Image.Image, camera: Camera, day: Day, walls: Floats, shot: Shot) -> None:
        """Draw everything in view, the far objects first.

        Parameters
        ----------
        walls : float32 (side,)
            Depth of the first wall per column, which hides what is behind it.
        """
        objects: list[_Object] = []
        for block, face in self._near_faces(camera):
            objects += self._trees_and_lamps(block, face)
            objects += self._traffic.parked(block, face, shot.day)
        objects += self._traffic.passing(camera, shot)
        draw = ImageDraw.Draw(picture)
        for depth, column, item in _visible(objects, camera, walls):
            if isinstance(item, _Tree):
                self._draw_tree(picture, camera, day, item, depth, column)
            elif isinstance(item, _Lamp):
                _draw_lamp(draw, camera, day, item)
            elif depth < _CAR_SIGHT_M:
                draw_car(draw, camera, day, item)

    def _near_faces(self, camera: Camera) -> list[tuple[int, int]]:
        """(block, face) of the blocks within sight."""
        x0, y0, x1, y1 = self._city.blocks.T
        nearest_x = np.clip(camera.x_m, x0, x1)
        nearest_y = np.clip(camera.y_m, y0, y1)
        near = np.flatnonzero(np.hypot(nearest_x - camera.x_m, nearest_y - camera.y_m) < _SIGHT_M)
        return [(int(block), face) for block in near for face in range(4)]

    def _trees_and_lamps(self, block: int, face: int) -> list[_Tree | _Lamp]:
        """Trees and lamps along a face, the same every day."""
        if (block, face) not in self._fixed:
            self._fixed[block, face] = self._plant(block, face)
        return self._fixed[block, face]

    def _plant(self, block: int, face: int) -> list[_Tree | _Lamp]:
        rng = np.random.default_rng((self._city.seed, 70, block, face))
        objects: list[_Tree | _Lamp] = []
        gap = float(rng.choice([12.0, 18.0, 27.0, 1e9]))
        kind = int(rng.integers(len(self._sprites)))
        length = self._city.face_length(block, face)
        for along in np.arange(5.0, length - 4.0, gap):
            if rng.random() < 0.8:
                along_m = float(along + rng.normal(0, 0.8))
                x, y = point_before(self._city, block, face, along_m, PAVEMENT_M - 0.7)
                objects.append(_Tree(x, y, float(rng.uniform(3.6, 5.2)), kind))
        for along in np.arange(1.5, length, 26.0):
            x, y = point_before(self._city, block, face, float(along), PAVEMENT_M - 0.4)
            objects.append(_Lamp(x, y, face))
        return objects

    def _draw_tree(
        self, picture: Image.Image, camera: Camera, day: Day, tree: _Tree, depth: float, column: float
    ) -> None:
        size = round(tree.height_m * camera.focal_px / depth)
        if depth < 3.0 or size < 6:
            return
        sprite = self._sprites[tree.kind].resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
        haze = 1.0 - float(np.exp(-depth / day.sight_m))
        light = (day.ambient + 0.6 * day.sun) * (1.0 - haze)
        curve = np.minimum(255.0, np.arange(256) * light[:, None] + haze * day.horizon[:, None])
        leaves = sprite.convert("RGB").point(curve.ravel().astype(int).tolist())
        foot = camera.horizon_px + camera.eye_m * camera.focal_px / depth
        picture.paste(leaves, (round(column - size / 2), round(foot - size)), sprite.getchannel("A"))


def _visible(objects: list[_Object], camera: Camera, walls: Floats) -> list[tuple[float, float, _Object]]:
    """(depth, column, object) of those in the picture and before the walls, farthest first."""
    points = camera.project(np.array([(item.x_m, item.y_m, 0.0) for item in objects]))
    visible = []
    for (column, _, depth), item in zip(points.tolist(), objects, strict=True):
        margin = 4.0 / max(depth, 0.5) * camera.focal_px
        if not (1.5 < depth < _SIGHT_M and -margin < column < camera.side_px + margin):
            continue
        if depth < walls[int(min(camera.side_px - 1, max(0.0, column)))] + 0.5:
            visible.append((depth, column, item))
    return sorted(visible, key=lambda entry: -entry[0])


def _draw_lamp(draw: ImageDraw.ImageDraw, camera: Camera, day: Day, lamp: _Lamp) -> None:
    x, y = lamp.x_m, lamp.y_m
    out = ((0, -1), (1, 0), (0, 1), (-1, 0))[lamp.face]
    arm = (x + 1.4 * out[0], y + 1.4 * out[1], _LAMP_M + 0.2)
    points = camera.project(np.array([(x, y, 0.0), (x, y, _LAMP_M), arm]))
    if points[:, 2].min() < 1.0:
        return
    red, green, blue = (int(70 * channel) for channel in day.ambient)
    width = max(1, round(0.14 * camera.focal_px / points[0, 2]))
    line = [(float(column), float(row)) for column, row in points[:, :2]]
    draw.line(line, fill=(red, green, blue), width=width)
    column, row = line[2]
    bulb = (column - 2 * width, row, column + 2 * width, row + width)
    draw.rectangle(bulb, fill=(red + 90, green + 90, blue + 80))


def _tree_sprite(kind: str, rng: np.random.Generator) -> Image.Image:
    """An RGBA picture of a tree, the foot of the trunk at the middle of the lower edge."""
    colour = _TREES[kind]
    picture = Image.new("RGBA", (_SPRITE_PX, _SPRITE_PX), (*colour, 0))
    draw = ImageDraw.Draw(picture)
    if kind == "palm":
        _draw_palm(draw, colour, rng)
        return picture
    draw.polygon([(122, 256), (134, 256), (131, 120), (125, 120)], fill=_BARK)
    for x in (86, 170):
        draw.line([(128, 176), (x, 110)], fill=_BARK, width=4)
    half_width, half_height = _CROWNS[kind]
    for _ in range(420 if kind == "airy" else 700):
        angle, reach = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1))
        x = 128 + half_width * reach * np.cos(angle)
        y = 96 + half_height * reach * np.sin(angle)
        size = rng.uniform(4, 11) * (0.7 if kind == "airy" else 1.0)
        # Light comes from above: leaves are darker at the lower edge of the crown.
        tone = 1.22 - 0.55 * (y - 96 + half_height) / (2 * half_height) + rng.normal(0, 0.12)
        draw.ellipse((x - size, y - size * 0.8, x + size, y + size * 0.8), fill=_leaf(colour, tone))
    return picture.filter(ImageFilter.GaussianBlur(0.6))


def _draw_palm(draw: ImageDraw.ImageDraw, colour: Colour, rng: np.random.Generator) -> None:
    draw.polygon([(123, 256), (133, 256), (131, 60), (126, 60)], fill=_BARK)
    for angle in np.linspace(-0.35 * np.pi, 1.35 * np.pi, 15):
        length = rng.uniform(48, 70)
        for step in np.linspace(0.15, 1.0, 14):
            x = 128 - length * step * np.cos(angle)
            y = 58 - length * step * np.sin(angle) * 0.8 + 26 * step**2
            leaf = _leaf(colour, rng.uniform(0.7, 1.2))
            draw.line([(x, y), (x + rng.uniform(-8, 8), y + 13)], fill=leaf, width=3)


def _leaf(colour: Colour, tone: float) -> tuple[int, int, int, int]:
    red, green, blue = (int(min(255.0, max(0.0, channel * tone))) for channel in colour)
    return red, green, blue, 255
