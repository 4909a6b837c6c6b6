"""What stands on the street: trees and lamps that stay, parked and passing cars that do not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from stages.toycity.camera import Camera, Floats
from stages.toycity.cars import Car, draw_car, random_car
from stages.toycity.light import Day
from stages.toycity.streets import KERB_LANE_M, PAVEMENT_M, City
from stages.toycity.trees import tree_sprites
from stages.toycity.visits import Shot

_SIGHT_M = 70.0
_CAR_SIGHT_M = 55.0
Thing = tuple[str, float, float, float, int]


class Furniture:
    """Trees and lamps of a city, and its cars of a day."""

    def __init__(self, city: City) -> None:
        self._city = city
        self._sprites = tree_sprites(city.seed)
        self._things: dict[tuple[int, int], list[Thing]] = {}
        self._cars: dict[tuple[int, int], list[Car]] = {}
        self._day = -1

    def draw(self, picture: Image.Image, camera: Camera, day: Day, walls: Floats, shot: Shot) -> None:
        """Paint everything in view onto the picture, the far things first.

        Parameters
        ----------
        walls : float32 (side,)
            Depth of the first wall per column: what is behind it does not show.
        """
        draw = ImageDraw.Draw(picture)
        seen: list[tuple[float, Thing | Car]] = []
        for block, face in self._near(camera):
            seen += [(0.0, thing) for thing in self._standing(block, face)]
            seen += [(0.0, car) for car in self._parked(block, face, shot.day)]
        seen += [(0.0, car) for car in self._passing(camera, shot)]
        ordered = self._visible([thing for _, thing in seen], camera, walls)
        for depth, column, thing in ordered:
            if isinstance(thing, Car):
                if depth < _CAR_SIGHT_M:
                    draw_car(draw, camera, day, thing)
            elif thing[0] == "tree":
                self._tree(picture, camera, day, thing, depth, column)
            else:
                _lamp(draw, camera, day, thing)

    def _near(self, camera: Camera) -> list[tuple[int, int]]:
        """Faces of blocks within sight."""
        x0, y0, x1, y1 = self._city.blocks.T
        nearest_x = np.clip(camera.x_m, x0, x1)
        nearest_y = np.clip(camera.y_m, y0, y1)
        close = np.flatnonzero(np.hypot(nearest_x - camera.x_m, nearest_y - camera.y_m) < _SIGHT_M)
        return [(int(block), face) for block in close for face in range(4)]

    def _visible(
        self, things: list[Thing | Car], camera: Camera, walls: Floats
    ) -> list[tuple[float, float, Thing | Car]]:
        """(depth, column, thing) of those in the picture and not behind a wall, farthest first."""
        places = np.array([(t.x_m, t.y_m, 0.0) if isinstance(t, Car) else (t[1], t[2], 0.0) for t in things])
        seen = camera.project(places)
        found = []
        for (column, _, depth), thing in zip(seen.tolist(), things, strict=True):
            margin = 4.0 / max(depth, 0.5) * camera.focal_px
            if not (1.5 < depth < _SIGHT_M and -margin < column < camera.side_px + margin):
                continue
            if depth < walls[int(min(camera.side_px - 1, max(0.0, column)))] + 0.5:
                found.append((depth, column, thing))
        return sorted(found, key=lambda item: -item[0])

    def _kerb(self, block: int, face: int, along: float, out_m: float) -> tuple[float, float]:
        """Local (x, y) `along` metres down a face and `out_m` in front of it."""
        x0, y0, x1, y1 = self._city.blocks[block].tolist()
        return (
            (x0 + along, y0 - out_m), (x1 + out_m, y0 + along), (x1 - along, y1 + out_m),
            (x0 - out_m, y1 - along),
        )[face]  # fmt: skip

    def _length(self, block: int, face: int) -> float:
        x0, y0, x1, y1 = self._city.blocks[block].tolist()
        return float(x1 - x0 if face % 2 == 0 else y1 - y0)

    def _standing(self, block: int, face: int) -> list[Thing]:
        """Trees and lamps along a face, the same every day."""
        key = (block, face)
        if key not in self._things:
            rng = np.random.default_rng((self._city.seed, 70, block, face))
            things: list[Thing] = []
            gap = float(rng.choice([12.0, 18.0, 27.0, 1e9]))
            kind = int(rng.integers(len(self._sprites)))
            for along in np.arange(5.0, self._length(block, face) - 4.0, gap):
                if rng.random() < 0.8:
                    x, y = self._kerb(block, face, float(along + rng.normal(0, 0.8)), PAVEMENT_M - 0.7)
                    things.append(("tree", x, y, float(rng.uniform(3.6, 5.2)), kind))
            for along in np.arange(1.5, self._length(block, face), 26.0):
                x, y = self._kerb(block, face, float(along), PAVEMENT_M - 0.4)
                things.append(("lamp", x, y, 6.5, face))
            self._things[key] = things
        return self._things[key]

    def _parked(self, block: int, face: int, day: int) -> list[Car]:
        """Cars at the kerb before a face, others every day."""
        if day != self._day:
            self._day = day
            self._cars.clear()
        if (block, face) not in self._cars:
            self._cars[block, face] = self._park(block, face, day)
        return self._cars[block, face]

    def _park(self, block: int, face: int, day: int) -> list[Car]:
        rng = np.random.default_rng((day, 71, block, face))
        share = float(rng.uniform(0.05, 0.3))
        cars = []
        for along in np.arange(5.0, self._length(block, face) - 4.0, 5.8):
            if rng.random() < share:
                x, y = self._kerb(
                    block, face, float(along + rng.normal(0, 0.25)), PAVEMENT_M + KERB_LANE_M / 2
                )
                cars.append(random_car(rng, x, y, face % 2, face in (0, 1)))
        return cars

    def _passing(self, camera: Camera, shot: Shot) -> list[Car]:
        """Cars that drive by, sometimes right in front of a query's lens."""
        rng = np.random.default_rng((shot.day, 72, shot.number))
        cars = []
        for _ in range(int(rng.integers(0, 4 if shot.query else 2))):
            away = float(rng.uniform(7.0, 60.0))
            turn = np.deg2rad(camera.heading_deg + rng.uniform(-40, 40))
            x, y = camera.x_m + away * np.sin(turn), camera.y_m + away * np.cos(turn)
            place = self._lane(float(x), float(y))
            if place is not None:
                cars.append(random_car(rng, place[0], place[1], place[2], place[3]))
        return cars

    def _lane(self, x: float, y: float) -> tuple[float, float, int, bool] | None:
        """The place in the nearest lane, if (x, y) is on a street."""
        for axis, streets, value in ((1, self._city.x_streets, x), (0, self._city.y_streets, y)):
            for low, high in streets.tolist():
                if low + PAVEMENT_M < value < high - PAVEMENT_M:
                    forth = (value > (low + high) / 2) == (axis == 1)
                    lane = (low + high) / 2 + (1.7 if value > (low + high) / 2 else -1.7)
                    return (lane, y, axis, forth) if axis == 1 else (x, lane, axis, forth)
        return None

    def _tree(
        self, picture: Image.Image, camera: Camera, day: Day, thing: Thing, depth: float, column: float
    ) -> None:
        _, _, _, height_m, kind = thing
        size = round(height_m * camera.focal_px / depth)
        if depth < 3.0 or size < 6:
            return
        sprite = self._sprites[kind].resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
        haze = 1.0 - float(np.exp(-depth / day.sight_m))
        light = (day.ambient + 0.6 * day.sun) * (1.0 - haze)
        curve = np.minimum(255.0, np.arange(256) * light[:, None] + haze * day.horizon[:, None])
        leaves = sprite.convert("RGB").point(curve.ravel().astype(int).tolist())
        base = camera.horizon_px + camera.eye_m * camera.focal_px / depth
        corner = (round(column - size / 2), round(base - size))
        picture.paste(leaves, corner, sprite.getchannel("A"))


def _lamp(draw: ImageDraw.ImageDraw, camera: Camera, day: Day, thing: Thing) -> None:
    _, x, y, height_m, face = thing
    out = ((0, -1), (1, 0), (0, 1), (-1, 0))[face]
    points = np.array([(x, y, 0.0), (x, y, height_m), (x + 1.4 * out[0], y + 1.4 * out[1], height_m + 0.2)])
    seen: npt.NDArray[np.float64] = camera.project(points)
    if seen[:, 2].min() < 1.0:
        return
    red, green, blue = (int(70 * channel) for channel in day.ambient)
    wide = max(1, round(0.14 * camera.focal_px / seen[0, 2]))
    line = [(float(px), float(py)) for px, py in seen[:, :2]]
    draw.line(line, fill=(red, green, blue), width=wide)
    x_px, y_px = line[2]
    draw.rectangle(
        (x_px - 2 * wide, y_px, x_px + 2 * wide, y_px + wide), fill=(red + 90, green + 90, blue + 80)
    )
