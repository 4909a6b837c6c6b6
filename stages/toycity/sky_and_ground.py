"""The background of a frame: sky, clouds and hills above the horizon, road and pavement below it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from stages.toycity.camera import Camera, Day, Floats
from stages.toycity.streets import PARKING_LANE_M, PAVEMENT_M, City

Frame = npt.NDArray[np.uint8]
_CLOUDS_PX = 256
_STEP_M = 0.05
_MARGIN_M = 620.0
_NOISE_PX = 512
_NOISE_PX_PER_M = 14.0
_FAR_M = 400.0

# Zones along one axis. Those of a block are the dashes of a centre line and the joints between slabs.
_ZONES = 11
BLOCK, BLOCK_DASH, BLOCK_JOINT, WALK, WALK_JOINT, KERB, PARKING, EDGE, LANE_A, LANE_B, CENTRE = range(_ZONES)
_ASPHALT, _DARK_ASPHALT, _SLAB, _JOINT, _STONE, _WHITE, _YELLOW = range(7)
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


class Sky:
    """The sky over a city: clouds change by the day, hills stay."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng((seed, 60))
        self._clouds = _cloud_tile(rng)
        bearing = np.deg2rad(np.arange(360))
        hills = np.full(360, 0.02)
        for wave in range(1, 9):
            hills += 0.022 / wave * np.sin(wave * bearing + rng.uniform(0, 2 * np.pi))
        self._hills = np.maximum(0.006, hills)

    def render(self, camera: Camera, day: Day, shift: int) -> Frame:
        """A frame of nothing but sky and hills, (side, side, 4); `shift` moves the clouds."""
        # Rendered at a quarter of the size: the sky is smooth.
        small = camera.side_px // 4
        scale = camera.side_px / small
        rows = (np.arange(small) + 0.5) * scale
        up = ((camera.horizon_px - rows) / camera.focal_px).astype(np.float32)
        columns = (np.arange(small) + 0.5) * scale - camera.side_px / 2
        sampled = np.minimum(camera.side_px - 1, (np.arange(small) * scale).astype(int))
        height = np.clip(up / 0.9, 0.0, 1.0)[:, None, None] ** 0.7
        frame = day.horizon + (day.zenith - day.horizon) * height
        dx, dy = (ray[sampled] / np.maximum(up, 0.05)[:, None] for ray in camera.rays)
        u = (dx * 26.0 + shift).astype(np.int32) & (_CLOUDS_PX - 1)
        v = (dy * 26.0 + shift // 7).astype(np.int32) & (_CLOUDS_PX - 1)
        cover = np.clip((self._clouds[v, u] + 1.6 * day.clouds - 1.0) * 1.4, 0.0, 1.0)
        cover = cover * np.clip(up * 5.0, 0.0, 1.0)[:, None] * (0.75 - 0.45 * (day.clouds > 0.85))
        white = np.minimum(255.0, day.horizon * 1.06 + 8.0)
        frame = frame + (white - frame) * cover[..., None]
        bearing = camera.heading_deg + np.rad2deg(np.arctan2(columns, camera.focal_px))
        hills = up[:, None] < np.interp(bearing % 360, np.arange(360), self._hills)
        green = np.array([96, 112, 106], np.float32) * (day.ambient + 0.6 * day.sun)
        frame[hills] = 0.5 * green + 0.5 * day.horizon
        picture = Image.fromarray(np.clip(frame, 0, 255).astype(np.uint8))
        picture = picture.resize((camera.side_px, camera.side_px), Image.Resampling.BILINEAR)
        return np.array(picture.convert("RGBA"))


def _cloud_tile(rng: np.random.Generator) -> Floats:
    """A tile of 1/f noise without seams, about 0 to 1."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(_CLOUDS_PX), np.fft.fftfreq(_CLOUDS_PX)))
    frequency[0, 0] = 1.0
    spectrum = np.fft.fft2(rng.normal(size=(_CLOUDS_PX, _CLOUDS_PX))) / frequency**1.7
    tile = np.fft.ifft2(spectrum).real
    low, high = np.percentile(tile, [2, 98])
    return np.asarray(np.clip((tile - low) / (high - low), 0, 1), np.float32)


class Ground:
    """The ground of a city; the colour of a point depends on its zone along x and its zone along y."""

    def __init__(self, city: City) -> None:
        self._x = _zones(city.x_streets)
        self._y = _zones(city.y_streets)
        pairs = [[_surface(min(x, y), max(x, y)) for y in range(_ZONES)] for x in range(_ZONES)]
        self._colours = _COLOURS[np.array(pairs)].reshape(-1, 3)
        self._noise = _noise_tile(city.seed)

    def paint(self, frame: Frame, camera: Camera, day: Day) -> None:
        """Paint the rows of `frame` (side, side, 4) below the horizon."""
        top = int(np.ceil(camera.horizon_px + 0.5))
        below = np.arange(top, camera.side_px) + 0.5 - camera.horizon_px
        depth = np.minimum(_FAR_M, camera.eye_m * camera.focal_px / below).astype(np.float32)
        dx, dy = camera.rays
        x = np.float32(camera.x_m + _MARGIN_M) + depth[:, None] * dx
        y = np.float32(camera.y_m + _MARGIN_M) + depth[:, None] * dy
        zone = self._x.take((x / _STEP_M).astype(np.int32)) * _ZONES
        zone += self._y.take((y / _STEP_M).astype(np.int32))
        texel = (y * _NOISE_PX_PER_M).astype(np.int32) & (_NOISE_PX - 1)
        texel *= _NOISE_PX
        texel += (x * _NOISE_PX_PER_M).astype(np.int32) & (_NOISE_PX - 1)
        haze = (1.0 - np.exp(-depth / day.sight_m)).astype(np.float32)
        contrast = np.minimum(1.0, 14.0 / depth) * (1.0 - haze)
        tone = (1.0 - haze)[:, None] + contrast[:, None] * self._noise.take(texel)
        palette = self._colours * (day.ambient + 0.7 * day.sun)
        if day.rain:
            palette = 0.65 * palette + 0.28 * day.horizon
        for channel in range(3):
            lit = palette[:, channel].take(zone) * tone + (haze * day.horizon[channel])[:, None]
            frame[top:, :, channel] = np.minimum(lit, 255.0)


def _zones(streets: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """The zone of every step of `_STEP_M` along one axis, from `_MARGIN_M` before the first street."""
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
        zone[(border >= PAVEMENT_M) & (border < PAVEMENT_M + PARKING_LANE_M)] = PARKING
        zone[np.abs(border - PAVEMENT_M - PARKING_LANE_M) < 0.06] = EDGE
        zone[np.abs(metres - (low + high) / 2) < 0.09] = CENTRE
        zones[inside] = zone[inside]
    return zones


def _surface(low: int, high: int) -> int:
    """The surface where two zones meet, the lower number first; the axes are interchangeable."""
    if high <= BLOCK_JOINT:
        return _SLAB
    if low <= BLOCK_JOINT:
        return {
            WALK: _JOINT if low == BLOCK_JOINT else _SLAB, WALK_JOINT: _JOINT, KERB: _STONE,
            PARKING: _DARK_ASPHALT, EDGE: _WHITE, CENTRE: _YELLOW if low == BLOCK_DASH else _ASPHALT,
        }.get(high, _ASPHALT)  # fmt: skip
    if high <= KERB:
        return {KERB: _STONE, WALK_JOINT: _JOINT}.get(high, _SLAB)
    if low in (WALK, WALK_JOINT):
        return _WHITE if high in (LANE_A, EDGE) else _ASPHALT
    return _ASPHALT


def _noise_tile(seed: int) -> Floats:
    """A tile of grain and stains with mean 0 that repeats without a seam, flat."""
    rng = np.random.default_rng((seed, 50))
    tile = rng.normal(0.0, 0.05, (_NOISE_PX, _NOISE_PX)).astype(np.float32)
    for side, strength in ((16, 0.06), (64, 0.05)):
        small = rng.normal(0.0, strength, (side, side)).astype(np.float32)
        wrapped = np.pad(small, 2, mode="wrap")
        scale = _NOISE_PX // side
        large = Image.fromarray(wrapped).resize(((side + 4) * scale,) * 2, Image.Resampling.BICUBIC)
        tile += np.asarray(large)[2 * scale : -2 * scale, 2 * scale : -2 * scale]
    return tile.ravel()
