"""Cars: where they park and drive, and how they are drawn, as an extruded profile with flat shading."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ImageDraw

from stages.toycity.camera import Camera, Day, Floats
from stages.toycity.streets import PARKING_LANE_M, PAVEMENT_M, City, Floats64, Shot

_PAINTS = np.array(
    [(198, 200, 204), (40, 42, 46), (128, 132, 136), (150, 36, 34), (36, 62, 110), (226, 226, 222),
     (70, 84, 70), (176, 148, 104), (24, 90, 120), (204, 152, 44)],
    np.float32,
)  # fmt: skip
_GLASS = np.array((48, 56, 66), np.float32)
_HALF_WIDTH_M = 0.88


@dataclass(frozen=True)
class _Model:
    """Outlines as points (along, up) in metres; `glass` numbers the edges of the profile that are windows."""

    # From the front bumper over the roof to the rear.
    profile: Floats64
    glass: tuple[int, ...]
    windows: Floats64

    @property
    def half_length_m(self) -> float:
        """Distance from the middle to the front bumper."""
        return float(self.profile[0, 0])


_MODELS = {
    "sedan": _Model(
        np.array([
            (2.2, 0.3), (2.2, 0.72), (1.1, 0.92), (0.45, 1.42), (-0.95, 1.42), (-1.6, 0.98), (-2.2, 0.9),
            (-2.2, 0.3),
        ]),
        (2, 4),
        np.array([(0.9, 0.95), (0.4, 1.35), (-0.9, 1.35), (-1.4, 1.0)]),
    ),
    "suv": _Model(
        np.array([
            (2.3, 0.35), (2.3, 0.95), (1.2, 1.1), (0.65, 1.75), (-1.9, 1.75), (-2.3, 1.1), (-2.3, 0.35),
        ]),
        (2, 4),
        np.array([(1.0, 1.12), (0.6, 1.66), (-1.85, 1.66), (-2.1, 1.14)]),
    ),
    "van": _Model(
        np.array([(2.6, 0.35), (2.6, 1.0), (1.9, 2.1), (-2.6, 2.15), (-2.6, 0.35)]),
        (1,),
        np.array([(2.1, 1.15), (1.75, 1.85), (0.7, 1.85), (0.7, 1.15)]),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Car:
    """A car at local (x_m, y_m) that points along `axis` (0 east, 1 north), or against it."""

    x_m: float
    y_m: float
    axis: int
    forward: bool
    model: str
    paint: int

    def points(self, outline: Floats64, side_m: float) -> Floats64:
        """Points (along, up) at `side_m` left of the car's middle plane, as local x, y, height (n, 3)."""
        along = outline[:, 0] * (1 if self.forward else -1)
        across = np.full(len(outline), side_m)
        if self.axis == 0:
            return np.stack([self.x_m + along, self.y_m + across, outline[:, 1]], axis=1)
        return np.stack([self.x_m + across, self.y_m + along, outline[:, 1]], axis=1)


class Traffic:
    """The cars of a city: parked ones change by the day, passing ones from photo to photo."""

    def __init__(self, city: City) -> None:
        self._city = city
        self._day = -1
        self._parked: dict[tuple[int, int], list[Car]] = {}

    def parked(self, block: int, face: int, day: int) -> list[Car]:
        """Cars at the kerb in front of a face."""
        if day != self._day:
            self._day = day
            self._parked.clear()
        if (block, face) not in self._parked:
            self._parked[block, face] = self._park(block, face, day)
        return self._parked[block, face]

    def _park(self, block: int, face: int, day: int) -> list[Car]:
        rng = np.random.default_rng((day, 71, block, face))
        share = float(rng.uniform(0.05, 0.3))
        cars = []
        for along in np.arange(5.0, self._city.face_length(block, face) - 4.0, 5.8):
            if rng.random() < share:
                along_m = float(along + rng.normal(0, 0.25))
                x, y = point_before(self._city, block, face, along_m, PAVEMENT_M + PARKING_LANE_M / 2)
                cars.append(_random_car(rng, x, y, face % 2, face in (0, 1)))
        return cars

    def passing(self, camera: Camera, shot: Shot) -> list[Car]:
        """Cars that drive by; a query may have one right before the lens."""
        rng = np.random.default_rng((shot.day, 72, shot.number))
        cars = []
        for _ in range(int(rng.integers(0, 4 if shot.query else 2))):
            distance = float(rng.uniform(7.0, 60.0))
            turn = np.deg2rad(camera.heading_deg + rng.uniform(-40, 40))
            x, y = camera.x_m + distance * np.sin(turn), camera.y_m + distance * np.cos(turn)
            position = self._nearest_lane(float(x), float(y))
            if position is not None:
                cars.append(_random_car(rng, *position))
        return cars

    def _nearest_lane(self, x: float, y: float) -> tuple[float, float, int, bool] | None:
        """(x, y, axis, forward) of the lane nearest to a point; None if the point is not on a street."""
        for axis, streets, value in ((1, self._city.x_streets, x), (0, self._city.y_streets, y)):
            for low, high in streets.tolist():
                if low + PAVEMENT_M < value < high - PAVEMENT_M:
                    upper = value > (low + high) / 2
                    lane = (low + high) / 2 + (1.7 if upper else -1.7)
                    return (lane, y, axis, upper) if axis == 1 else (x, lane, axis, not upper)
        return None


def point_before(city: City, block: int, face: int, along_m: float, distance_m: float) -> tuple[float, float]:
    """Local (x, y) `along_m` metres along a face and `distance_m` in front of it."""
    x0, y0, x1, y1 = city.blocks[block].tolist()
    return (
        (x0 + along_m, y0 - distance_m), (x1 + distance_m, y0 + along_m), (x1 - along_m, y1 + distance_m),
        (x0 - distance_m, y1 - along_m),
    )[face]  # fmt: skip


def _random_car(rng: np.random.Generator, x_m: float, y_m: float, axis: int, forward: bool) -> Car:
    model = ("sedan", "sedan", "suv", "van")[int(rng.integers(4))]
    return Car(x_m, y_m, axis, forward, model, int(rng.integers(len(_PAINTS))))


def draw_car(draw: ImageDraw.ImageDraw, camera: Camera, day: Day, car: Car) -> None:
    """Draw the visible faces of a car, the far ones first; a car that touches the lens is left out."""
    model = _MODELS[car.model]
    left, right = (
        camera.project(car.points(model.profile, side)) for side in (_HALF_WIDTH_M, -_HALF_WIDTH_M)
    )
    if min(left[:, 2].min(), right[:, 2].min()) < 1.2:
        return
    light = day.ambient + 0.5 * day.sun
    paint = _PAINTS[car.paint]
    _draw_shadow(draw, camera, car, light)
    faces = []
    for first, step in enumerate(np.diff(model.profile, axis=0)):
        corners = np.stack([left[first], left[first + 1], right[first + 1], right[first]])
        slope = abs(step[1]) / max(0.1, np.hypot(*step))
        colour = (_GLASS if first in model.glass else paint) * light * (1.12 - 0.3 * slope)
        faces.append((float(corners[:, 2].mean()), corners, colour))
    for _, corners, colour in sorted(faces, key=lambda face: -face[0]):
        _fill(draw, corners, colour)
    near, sign = (left, 1) if left[:, 2].mean() < right[:, 2].mean() else (right, -1)
    _fill(draw, near, paint * light * 0.84)
    _draw_side(draw, camera, car, sign * _HALF_WIDTH_M, light)


def _draw_side(draw: ImageDraw.ImageDraw, camera: Camera, car: Car, side_m: float, light: Floats) -> None:
    """Windows and wheels of the side that faces the camera."""
    model = _MODELS[car.model]
    _fill(draw, camera.project(car.points(model.windows, side_m)), _GLASS * light)
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    axle = model.half_length_m - 0.8
    for radius, tone in ((0.34, 26.0), (0.18, 150.0)):
        for centre in (axle, -axle):
            wheel = np.stack([centre + radius * np.cos(turn), 0.34 + radius * np.sin(turn)], axis=1)
            corners = camera.project(car.points(wheel, side_m * 1.01))
            _fill(draw, corners, np.full(3, tone, np.float32) * light)


def _draw_shadow(draw: ImageDraw.ImageDraw, camera: Camera, car: Car, light: Floats) -> None:
    reach = _MODELS[car.model].half_length_m + 0.1
    ends = np.array([(reach, 0.0), (-reach, 0.0)])
    corners = np.concatenate([car.points(ends, 0.98), car.points(ends[::-1], -0.98)])
    _fill(draw, camera.project(corners), np.full(3, 40.0, np.float32) * light)


def _fill(draw: ImageDraw.ImageDraw, corners: Floats64, colour: npt.NDArray[np.floating]) -> None:
    red, green, blue = (int(min(255.0, channel)) for channel in colour)
    draw.polygon([(float(x), float(y)) for x, y in corners[:, :2]], fill=(red, green, blue))
