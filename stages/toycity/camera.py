"""The camera: projection, the light of the day, and the development of a frame into a JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Floats = npt.NDArray[np.float32]

_HORIZON = 0.71
_CURVE_STEPS = 1024
# Sun, ambient, zenith, horizon, clouds, sight_m.
_WEATHER = {
    "clear": ((0.62, 0.58, 0.50), (0.62, 0.65, 0.72), (88, 138, 204), (196, 214, 230), 0.35, 420.0),
    "evening": ((0.80, 0.54, 0.28), (0.52, 0.52, 0.60), (104, 128, 178), (246, 206, 156), 0.4, 300.0),
    "overcast": ((0.04, 0.04, 0.04), (0.82, 0.84, 0.87), (176, 182, 190), (208, 212, 216), 1.0, 240.0),
    "haze": ((0.16, 0.15, 0.14), (0.78, 0.79, 0.80), (196, 200, 204), (216, 216, 214), 0.9, 110.0),
    "rain": ((0.02, 0.02, 0.02), (0.58, 0.62, 0.68), (134, 142, 152), (172, 178, 186), 1.0, 150.0),
    "dusk": ((0.10, 0.08, 0.14), (0.44, 0.46, 0.66), (70, 82, 138), (214, 168, 160), 0.5, 260.0),
}


@dataclass(frozen=True)
class Camera:
    """A pinhole camera at local (x_m, y_m). It is always level, so walls stay upright."""

    x_m: float
    y_m: float
    eye_m: float
    heading_deg: float
    fov_deg: float
    side_px: int

    @cached_property
    def focal_px(self) -> float:
        """Focal length."""
        return self.side_px / 2 / float(np.tan(np.deg2rad(self.fov_deg) / 2))

    @property
    def horizon_px(self) -> float:
        """Row of the horizon, below the middle so that more of the houses is visible."""
        return self.side_px * _HORIZON

    @cached_property
    def forward(self) -> tuple[float, float]:
        """Unit vector of the viewing direction."""
        angle = np.deg2rad(self.heading_deg)
        return float(np.sin(angle)), float(np.cos(angle))

    @cached_property
    def rays(self) -> tuple[Floats, Floats]:
        """Direction (dx, dy) of the ray of each column, of depth 1, each (side,)."""
        fx, fy = self.forward
        across = (np.arange(self.side_px) + 0.5 - self.side_px / 2) / self.focal_px
        return (fx + across * fy).astype(np.float32), (fy - across * fx).astype(np.float32)

    def project(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Column, row and depth of points (n, 3), given as local x, y and height."""
        fx, fy = self.forward
        dx, dy = points[:, 0] - self.x_m, points[:, 1] - self.y_m
        depth = dx * fx + dy * fy
        safe = np.maximum(depth, 1e-3)
        column = self.side_px / 2 + (dx * fy - dy * fx) / safe * self.focal_px
        row = self.horizon_px - (points[:, 2] - self.eye_m) / safe * self.focal_px
        return np.stack([column, row, depth], axis=1)


@dataclass(frozen=True)
class Day:
    """Light, weather and lens of one day.

    Attributes
    ----------
    sun_deg : float
        Direction of the sun, clockwise from north.
    sun, ambient : float32 (3,)
        Colour and strength of direct and of scattered light.
    zenith, horizon : float32 (3,)
        Sky colours, 0 to 255.
    clouds : float
        0 none to 1 overcast.
    sight_m : float
        Distance at which haze has replaced 63 % of the light.
    tint : float32 (3,)
        White balance.
    blur_px, noise : float
        Standard deviation of the blur, in pixels of a 256 pixel image, and of the noise, in grey levels.
    quality : int
        JPEG quality.
    """

    sun_deg: float
    sun: Floats
    ambient: Floats
    zenith: Floats
    horizon: Floats
    clouds: float
    sight_m: float
    exposure: float
    gamma: float
    saturation: float
    tint: Floats
    blur_px: float
    noise: float
    rain: bool
    quality: int


def database_day(day: int) -> Day:
    """A day on which the database car drives: fair weather, a good camera."""
    rng = np.random.default_rng((day, 40))
    weather = str(rng.choice(["clear", "clear", "clear", "evening", "overcast"]))
    return _day(rng, weather, variation=0.25, blur_px=0.0, noise=1.5, quality=87)


def query_day(day: int) -> Day:
    """A day of a query: any weather, and another camera with its own colours, blur and noise."""
    rng = np.random.default_rng((day, 41))
    weather = str(rng.choice(list(_WEATHER), p=[0.22, 0.16, 0.22, 0.12, 0.14, 0.14]))
    blur = float(rng.choice([0.0, 0.4, 0.7], p=[0.6, 0.25, 0.15]))
    noise = float(rng.choice([2.0, 3.5, 5.0], p=[0.5, 0.3, 0.2]))
    return _day(rng, weather, variation=0.65, blur_px=blur, noise=noise, quality=int(rng.integers(70, 90)))


def _day(
    rng: np.random.Generator, weather: str, *, variation: float, blur_px: float, noise: float, quality: int
) -> Day:
    sun, ambient, zenith, horizon, clouds, sight_m = _WEATHER[weather]
    warmth = float(rng.normal(0.0, 0.12)) * variation
    green = float(rng.normal(0.0, 0.05)) * variation
    return Day(
        sun_deg=float(rng.uniform(90.0, 270.0)),
        sun=np.array(sun, np.float32),
        ambient=np.array(ambient, np.float32),
        zenith=np.array(zenith, np.float32),
        horizon=np.array(horizon, np.float32),
        clouds=float(np.clip(clouds + rng.normal(0.0, 0.15), 0.0, 1.0)),
        sight_m=sight_m * float(rng.uniform(0.8, 1.25)),
        exposure=float(np.exp(rng.normal(0.0, 0.2 * variation))),
        gamma=float(np.exp(rng.normal(0.0, 0.18 * variation))),
        saturation=float(np.clip(1.0 + rng.normal(-0.12, 0.3) * variation, 0.2, 1.5)),
        tint=np.array([1.0 + warmth, 1.0 + green, 1.0 - warmth], np.float32),
        blur_px=blur_px,
        noise=noise,
        rain=weather == "rain",
        quality=quality,
    )


class Darkroom:
    """Turns rendered frames into photos of `image_px` pixels a side."""

    def __init__(self, image_px: int) -> None:
        self._image_px = image_px
        ramp = np.linspace(-1, 1, image_px, dtype=np.float32) ** 2
        self._vignette = 1.0 - 0.07 * (ramp[:, None] + ramp[None, :])[..., None]
        # One block of noise, read from a random offset: new noise takes as long as rendering the frame.
        self._grain = np.random.default_rng(0).standard_normal(2 * image_px * image_px * 3, np.float32)

    def develop(self, frame: Image.Image, day: Day, tilt_deg: float, rng: np.random.Generator) -> bytes:
        """Encode a rendered RGB frame as the day's camera records it."""
        margin = 0.0
        if tilt_deg:
            margin = frame.width * 0.05
            frame = frame.rotate(tilt_deg, Image.Resampling.BILINEAR)
        box = (margin, margin, frame.width - margin, frame.width - margin)
        frame = frame.resize((self._image_px, self._image_px), Image.Resampling.BILINEAR, box=box)
        if day.blur_px:
            frame = frame.filter(ImageFilter.GaussianBlur(day.blur_px * self._image_px / 256))
        pixels = np.asarray(frame).astype(np.float32)
        if day.rain:
            pixels = _rain(pixels, rng)
        buffer = io.BytesIO()
        Image.fromarray(self._expose(pixels, day, rng)).save(buffer, "JPEG", quality=day.quality)
        return buffer.getvalue()

    def _expose(self, pixels: Floats, day: Day, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Vignette, exposure, white balance, saturation, gamma and noise."""
        pixels *= self._vignette * (np.float32(day.exposure) * day.tint)
        grey = (pixels[..., :1] + pixels[..., 1:2] + pixels[..., 2:]) / np.float32(3)
        pixels -= grey
        pixels *= np.float32(day.saturation)
        pixels += grey
        # A table of the gamma curve: a power per pixel would be several times slower.
        level = np.arange(_CURVE_STEPS, dtype=np.float32) / (_CURVE_STEPS - 1)
        curve = (255.0 * level ** np.float32(day.gamma)).astype(np.float32)
        pixels *= np.float32((_CURVE_STEPS - 1) / 255.0)
        np.clip(pixels, 0, _CURVE_STEPS - 1, out=pixels)
        pixels = curve.take(pixels.astype(np.int32))
        first = int(rng.integers(pixels.size))
        pixels += self._grain[first : first + pixels.size].reshape(pixels.shape) * np.float32(day.noise)
        return np.clip(pixels, 0.0, 255.0, out=pixels).astype(np.uint8)


def _rain(pixels: Floats, rng: np.random.Generator) -> Floats:
    """Add streaks of rain."""
    side = pixels.shape[0]
    drops = (rng.random((side // 6 + 1, side)) < 0.03).astype(np.uint8) * 255
    streaks = Image.fromarray(drops).resize((side, side), Image.Resampling.BILINEAR)
    return pixels + np.float32(0.11) * np.asarray(streaks, dtype=np.float32)[..., None]
