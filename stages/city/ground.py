"""Road and pavement: a point's look follows from where it lies across and along, by two one-dimensional tables."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from stages.city.camera import Camera
from stages.city.light import Day
from stages.city.streets import KERB_LANE_M, PAVEMENT_M, City

_STEP_M = 0.05
_MARGIN_M = 400.0
_NOISE_PX = 512
# Zones of one axis. Blocks carry the dash of a centre line along them and the joints of the slabs.
BLOCK, BLOCK_DASH, BLOCK_JOINT, WALK, WALK_JOINT, KERB, PARKING, EDGE, LANE_A, LANE_B, CENTRE = range(11)
_ROAD = (PARKING, EDGE, LANE_A, LANE_B, CENTRE)

_ASPHALT, _ASPHALT_DARK, _SLAB, _JOINT, _STONE, _WHITE, _YELLOW = range(7)
_COLOURS = np.array(
    [
        (92, 92, 95),
        (78, 78, 82),
        (168, 163, 154),
        (132, 128, 121),
        (188, 184, 176),
        (214, 212, 204),
        (206, 166, 60),
    ],
    np.float32,
)


class Ground:
    """The ground of one city."""

    def __init__(self, city: City) -> None:
        self._x = _zones(city.x_streets)
        self._y = _zones(city.y_streets)
        self._colours = _COLOURS[_looks()]
        self._noise = _noise(city.seed)

    def render(self, camera: Camera, day: Day) -> npt.NDArray[np.float32]:
        """Rows below the horizon, float32 (rows, side, 3), haze not yet applied."""
        side = camera.side_px
        top = int(np.ceil(camera.horizon_px + 0.5))
        depth = (camera.eye_m * camera.focal_px / (np.arange(top, side) + 0.5 - camera.horizon_px)).astype(
            np.float32
        )
        dx, dy = camera.rays()
        x = np.float32(camera.x_m) + depth[:, None] * dx
        y = np.float32(camera.y_m) + depth[:, None] * dy
        zone_x = self._x[_index(x, self._x.size)]
        zone_y = self._y[_index(y, self._y.size)]
        colour = self._colours[zone_x, zone_y]
        grain_px = 14.0
        coarse = (
            (x * grain_px).astype(np.int32) & (_NOISE_PX - 1),
            (y * grain_px).astype(np.int32) & (_NOISE_PX - 1),
        )
        fade = np.minimum(1.0, 14.0 / depth)[:, None].astype(np.float32)
        tone = 1.0 + fade * self._noise[coarse[1], coarse[0]]
        light = day.ambient + 0.7 * day.sun
        shine = 0.0
        if day.rain:
            shine = 0.35
        colour = colour * tone[..., None] * light
        return colour * (1 - shine) + shine * 0.8 * day.horizon if shine else colour


def _index(metres: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.int32]:
    return np.clip((metres + _MARGIN_M) / _STEP_M, 0, size - 1).astype(np.int32)


def _zones(streets: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """The zone of every step along one axis."""
    steps = int((streets[-1, 1] + 2 * _MARGIN_M) / _STEP_M)
    metres = (np.arange(steps) + 0.5) * _STEP_M - _MARGIN_M
    zones = np.full(steps, BLOCK, np.uint8)
    zones[metres % 6.0 < 2.6] = BLOCK_DASH
    zones[metres % 1.5 < 0.06] = BLOCK_JOINT
    for low, high in streets.tolist():
        inside = (metres >= low) & (metres < high)
        border = np.minimum(metres - low, high - metres)
        lane = np.where((metres - low) % 1.3 < 0.65, LANE_A, LANE_B)
        zone = np.where(border < PAVEMENT_M, np.where(border % 1.5 < 0.06, WALK_JOINT, WALK), lane)
        zone[(border >= PAVEMENT_M - 0.25) & (border < PAVEMENT_M)] = KERB
        zone[(border >= PAVEMENT_M) & (border < PAVEMENT_M + KERB_LANE_M)] = PARKING
        zone[np.abs(border - PAVEMENT_M - KERB_LANE_M) < 0.06] = EDGE
        zone[np.abs(metres - (low + high) / 2) < 0.09] = CENTRE
        zones[inside] = zone[inside]
    return zones


def _looks() -> npt.NDArray[np.int64]:
    """Look of each pair of zones (x zone, y zone); the table is the same read either way."""
    looks = np.full((11, 11), _ASPHALT)
    for one in range(11):
        for two in range(11):
            looks[one, two] = _look(one, two)
    return looks


def _look(one: int, two: int) -> int:
    low, high = min(one, two), max(one, two)
    if high <= BLOCK_JOINT:
        return _SLAB
    if low <= BLOCK_JOINT:
        along = {
            WALK: _JOINT if low == BLOCK_JOINT else _SLAB, WALK_JOINT: _JOINT, KERB: _STONE, PARKING: _ASPHALT_DARK,
            EDGE: _WHITE, CENTRE: _YELLOW if low == BLOCK_DASH else _ASPHALT,
        }  # fmt: skip
        return along.get(high, _ASPHALT)
    if high <= KERB:
        return _STONE if high == KERB else (_JOINT if high == WALK_JOINT else _SLAB)
    if low in (WALK, WALK_JOINT):
        return _WHITE if high in (LANE_A, EDGE) else _ASPHALT
    return _ASPHALT


def _noise(seed: int) -> npt.NDArray[np.float32]:
    """A tile of grain and stains, mean 0, that repeats without a seam."""
    rng = np.random.default_rng((seed, 50))
    tile = rng.normal(0.0, 0.05, (_NOISE_PX, _NOISE_PX)).astype(np.float32)
    for side, strength in ((16, 0.06), (64, 0.05)):
        small = rng.normal(0.0, strength, (side, side)).astype(np.float32)
        wrapped = np.pad(small, 2, mode="wrap")
        scale = _NOISE_PX // side
        large = Image.fromarray(wrapped).resize(((side + 4) * scale,) * 2, Image.Resampling.BICUBIC)
        tile += np.asarray(large)[2 * scale : -2 * scale, 2 * scale : -2 * scale]
    return tile
