"""Cars: a profile drawn out to a body, flat shaded, wheels on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ImageDraw

from stages.toycity.camera import Camera
from stages.toycity.light import Day

_PAINTS = np.array(
    [(198, 200, 204), (40, 42, 46), (128, 132, 136), (150, 36, 34), (36, 62, 110), (226, 226, 222),
     (70, 84, 70), (176, 148, 104), (24, 90, 120), (204, 152, 44)],
    np.float32,
)  # fmt: skip
_GLASS = np.array((48, 56, 66), np.float32)
# Profiles run from the front bumper over the roof to the rear: metres along, up, what the next face is.
_PROFILES: dict[str, tuple[tuple[float, float, str], ...]] = {
    "sedan": (
        (2.2, 0.3, "body"), (2.2, 0.72, "body"), (1.1, 0.92, "glass"), (0.45, 1.42, "body"),
        (-0.95, 1.42, "glass"), (-1.6, 0.98, "body"), (-2.2, 0.9, "body"), (-2.2, 0.3, "body"),
    ),
    "suv": (
        (2.3, 0.35, "body"), (2.3, 0.95, "body"), (1.2, 1.1, "glass"), (0.65, 1.75, "body"),
        (-1.9, 1.75, "glass"), (-2.3, 1.1, "body"), (-2.3, 0.35, "body"),
    ),
    "van": (
        (2.6, 0.35, "body"), (2.6, 1.0, "glass"), (1.9, 2.1, "body"), (-2.6, 2.15, "body"),
        (-2.6, 0.35, "body"),
    ),
}  # fmt: skip
_WINDOWS: dict[str, tuple[tuple[float, float], ...]] = {
    "sedan": ((0.9, 0.95), (0.4, 1.35), (-0.9, 1.35), (-1.4, 1.0)),
    "suv": ((1.0, 1.12), (0.6, 1.66), (-1.85, 1.66), (-2.1, 1.14)),
    "van": ((2.1, 1.15), (1.75, 1.85), (0.7, 1.85), (0.7, 1.15)),
}
_HALF_WIDTH_M = 0.88


@dataclass(frozen=True)
class Car:
    """A car at a place (local metres), heading along `axis` (0 east, 1 north) or against it."""

    x_m: float
    y_m: float
    axis: int
    forth: bool
    kind: str
    paint: int


def random_car(rng: np.random.Generator, x_m: float, y_m: float, axis: int, forth: bool) -> Car:
    """Any car at this place."""
    kind = ("sedan", "sedan", "suv", "van")[int(rng.integers(4))]
    return Car(x_m, y_m, axis, forth, kind, int(rng.integers(len(_PAINTS))))


def draw_car(draw: ImageDraw.ImageDraw, camera: Camera, day: Day, car: Car) -> None:
    """Paint the car's visible faces, the far ones first; a car that touches the lens is left out."""
    profile = _PROFILES[car.kind]
    outline = np.array([(along, up) for along, up, _ in profile])
    left, right = (_place(car, outline, side) for side in (_HALF_WIDTH_M, -_HALF_WIDTH_M))
    seen_left, seen_right = camera.project(left), camera.project(right)
    if min(seen_left[:, 2].min(), seen_right[:, 2].min()) < 1.2:
        return
    light = day.ambient + 0.5 * day.sun
    paint = _PAINTS[car.paint]
    _shadow(draw, camera, car, light)
    faces = []
    for first in range(len(profile) - 1):
        corners = np.stack([seen_left[first], seen_left[first + 1], seen_right[first + 1], seen_right[first]])
        rise = abs(outline[first + 1, 1] - outline[first, 1]) / max(
            0.1, np.hypot(*(outline[first + 1] - outline[first]))
        )
        colour = (_GLASS if profile[first][2] == "glass" else paint) * light * (1.12 - 0.3 * rise)
        faces.append((float(corners[:, 2].mean()), corners, colour))
    for _, corners, colour in sorted(faces, key=lambda face: -face[0]):
        _fill(draw, corners, colour)
    near, sign = (seen_left, 1) if seen_left[:, 2].mean() < seen_right[:, 2].mean() else (seen_right, -1)
    _fill(draw, near, paint * light * 0.84)
    _side(draw, camera, car, sign * _HALF_WIDTH_M, light)


def _place(car: Car, outline: npt.NDArray[np.float64], side_m: float) -> npt.NDArray[np.float64]:
    """Points of the profile plane (along, up) as local x, y, height."""
    along = outline[:, 0] * (1 if car.forth else -1)
    across = np.full(len(outline), side_m)
    if car.axis == 0:
        return np.stack([car.x_m + along, car.y_m + across, outline[:, 1]], axis=1)
    return np.stack([car.x_m + across, car.y_m + along, outline[:, 1]], axis=1)


def _side(
    draw: ImageDraw.ImageDraw, camera: Camera, car: Car, side_m: float, light: npt.NDArray[np.float32]
) -> None:
    """Windows and wheels of the side that faces the camera."""
    _fill(draw, camera.project(_place(car, np.array(_WINDOWS[car.kind]), side_m)), _GLASS * light)
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    reach = _PROFILES[car.kind][0][0] - 0.8
    for radius, tone in ((0.34, 26.0), (0.18, 150.0)):
        for centre in (reach, -reach):
            wheel = np.stack([centre + radius * np.cos(turn), 0.34 + radius * np.sin(turn)], axis=1)
            _fill(
                draw, camera.project(_place(car, wheel, side_m * 1.01)), np.full(3, tone, np.float32) * light
            )


def _shadow(draw: ImageDraw.ImageDraw, camera: Camera, car: Car, light: npt.NDArray[np.float32]) -> None:
    reach = _PROFILES[car.kind][0][0] + 0.1
    ends = np.array([(reach, 0.0), (-reach, 0.0)])
    corners = np.concatenate([_place(car, ends, 0.98), _place(car, ends[::-1], -0.98)])
    _fill(draw, camera.project(corners), np.full(3, 40.0, np.float32) * light)


def _fill(
    draw: ImageDraw.ImageDraw, corners: npt.NDArray[np.float64], colour: npt.NDArray[np.float32]
) -> None:
    red, green, blue = (int(min(255.0, channel)) for channel in colour)
    draw.polygon([(float(x), float(y)) for x, y in corners[:, :2]], fill=(red, green, blue))
