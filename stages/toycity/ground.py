"""Road and pavement: what a point shows follows from its zone across and along the streets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from stages.toycity.camera import Camera
from stages.toycity.light import Day
from stages.toycity.streets import KERB_LANE_M, PAVEMENT_M, City

_STEP_M = 0.05
_MARGIN_M = 620.0
_NOISE_PX = 512
_GRAIN_PX = 14.0
_FAR_M = 400.0
# Zones of one axis. Blocks carry the dash of a centre line along them and the joints of the slabs.
BLOCK, BLOCK_DASH, BLOCK_JOINT, WALK, WALK_JOINT, KERB, PARKING, EDGE, LANE_A, LANE_B, CENTRE = range(11)
_ZONES = 11
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
        self._colours = _COLOURS[_looks()].reshape(-1, 3)
        self._noise = _noise(city.seed)

    def paint(self, frame: npt.NDArray[np.uint8], camera: Camera, day: Day) -> None:
        """Paint the rows below the horizon of `frame` (side, side, 4)."""
        side = camera.side_px
        top = int(np.ceil(camera.horizon_px + 0.5))
        below = np.arange(top, side) + 0.5 - camera.horizon_px
        depth = np.minimum(_FAR_M, camera.eye_m * camera.focal_px / below).astype(np.float32)
        dx, dy = camera.rays()
        x = np.float32(camera.x_m + _MARGIN_M) + depth[:, None] * dx
        y = np.float32(camera.y_m + _MARGIN_M) + depth[:, None] * dy
        zone = self._x.take((x / _STEP_M).astype(np.int32)) * _ZONES
        zone += self._y.take((y / _STEP_M).astype(np.int32))
        texel = (y * _GRAIN_PX).astype(np.int32) & (_NOISE_PX - 1)
        texel *= _NOISE_PX
        texel += (x * _GRAIN_PX).astype(np.int32) & (_NOISE_PX - 1)
        haze = (1.0 - np.exp(-depth / day.sight_m)).astype(np.float32)
        fade = np.minimum(1.0, 14.0 / depth) * (1.0 - haze)
        tone = (1.0 - haze)[:, None] + fade[:, None] * self._noise.take(texel)
        light = day.ambient + 0.7 * day.sun
        palette = self._colours * light
        if day.rain:
            palette = 0.65 * palette + 0.28 * day.horizon
        for channel in range(3):
            lit = palette[:, channel].take(zone) * tone + (haze * day.horizon[channel])[:, None]
            frame[top:, :, channel] = np.minimum(lit, 255.0)


def _zones(streets: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """The zone of every step along one axis."""
    steps = int((streets[-1, 1] + 2 * _MARGIN_M) / _STEP_M)
    metres = (np.arange(steps) + 0.5) * _STEP_M - _MARGIN_M
    zones = np.full(steps, BLOCK, np.int32)
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
    looks = np.full((_ZONES, _ZONES), _ASPHALT)
    for one in range(_ZONES):
        for two in range(_ZONES):
            looks[one, two] = _look(one, two)
    return looks


def _look(one: int, two: int) -> int:
    low, high = min(one, two), max(one, two)
    if high <= BLOCK_JOINT:
        return _SLAB
    if low <= BLOCK_JOINT:
        along = {
            WALK: _JOINT if low == BLOCK_JOINT else _SLAB, WALK_JOINT: _JOINT, KERB: _STONE,
            PARKING: _ASPHALT_DARK, EDGE: _WHITE, CENTRE: _YELLOW if low == BLOCK_DASH else _ASPHALT,
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
    return tile.ravel()
