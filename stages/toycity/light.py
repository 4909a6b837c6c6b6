"""The light of a day: sun, sky, haze, and what the camera makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RGB = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Day:
    """Light and lens of one day.

    Attributes
    ----------
    sun_deg : float
        Where the sun stands, clockwise from north.
    sun, ambient : float32 (3,)
        Colour and strength of direct and of scattered light.
    zenith, horizon : float32 (3,)
        Sky colours, 0 to 255.
    clouds : float
        0 none to 1 overcast.
    sight_m : float
        Distance at which haze has taken 63 %.
    exposure, gamma, saturation : float
    tint : float32 (3,)
        White balance.
    blur_px, noise : float
        Gaussian blur (pixels of a 256 pixel image) and noise (grey levels).
    rain : bool
    quality : int
        JPEG quality.
    """

    sun_deg: float
    sun: RGB
    ambient: RGB
    zenith: RGB
    horizon: RGB
    clouds: float
    sight_m: float
    exposure: float
    gamma: float
    saturation: float
    tint: RGB
    blur_px: float
    noise: float
    rain: bool
    quality: int


_WEATHERS = ("clear", "evening", "overcast", "haze", "rain", "dusk")
# sun, ambient, zenith, horizon, clouds, sight_m
_LOOKS = {
    "clear": ((0.62, 0.58, 0.50), (0.62, 0.65, 0.72), (88, 138, 204), (196, 214, 230), 0.35, 420.0),
    "evening": ((0.80, 0.54, 0.28), (0.52, 0.52, 0.60), (104, 128, 178), (246, 206, 156), 0.4, 300.0),
    "overcast": ((0.04, 0.04, 0.04), (0.82, 0.84, 0.87), (176, 182, 190), (208, 212, 216), 1.0, 240.0),
    "haze": ((0.16, 0.15, 0.14), (0.78, 0.79, 0.80), (196, 200, 204), (216, 216, 214), 0.9, 110.0),
    "rain": ((0.02, 0.02, 0.02), (0.58, 0.62, 0.68), (134, 142, 152), (172, 178, 186), 1.0, 150.0),
    "dusk": ((0.10, 0.08, 0.14), (0.44, 0.46, 0.66), (70, 82, 138), (214, 168, 160), 0.5, 260.0),
}


def database_day(day: int) -> Day:
    """A day on which the database car drives: fair weather, a steady camera."""
    rng = np.random.default_rng((day, 40))
    weather = str(rng.choice(["clear", "clear", "clear", "evening", "overcast"]))
    return _day(rng, weather, strength=0.25, blur_px=0.0, noise=1.5, quality=87)


def query_day(day: int) -> Day:
    """Another day, another camera: any weather, colour cast, exposure, blur, noise."""
    rng = np.random.default_rng((day, 41))
    weather = str(rng.choice(_WEATHERS, p=[0.22, 0.16, 0.22, 0.12, 0.14, 0.14]))
    blur = float(rng.choice([0.0, 0.4, 0.7], p=[0.6, 0.25, 0.15]))
    noise = float(rng.choice([2.0, 3.5, 5.0], p=[0.5, 0.3, 0.2]))
    return _day(rng, weather, strength=0.65, blur_px=blur, noise=noise, quality=int(rng.integers(70, 90)))


def _day(
    rng: np.random.Generator, weather: str, *, strength: float, blur_px: float, noise: float, quality: int
) -> Day:
    sun, ambient, zenith, horizon, clouds, sight_m = _LOOKS[weather]
    warmth = float(rng.normal(0.0, 0.12)) * strength
    green = float(rng.normal(0.0, 0.05)) * strength
    return Day(
        sun_deg=float(rng.uniform(90.0, 270.0)),
        sun=np.array(sun, np.float32),
        ambient=np.array(ambient, np.float32),
        zenith=np.array(zenith, np.float32),
        horizon=np.array(horizon, np.float32),
        clouds=float(np.clip(clouds + rng.normal(0.0, 0.15), 0.0, 1.0)),
        sight_m=sight_m * float(rng.uniform(0.8, 1.25)),
        exposure=float(np.exp(rng.normal(0.0, 0.2 * strength))),
        gamma=float(np.exp(rng.normal(0.0, 0.18 * strength))),
        saturation=float(np.clip(1.0 + rng.normal(-0.12, 0.3) * strength, 0.2, 1.5)),
        tint=np.array([1.0 + warmth, 1.0 + green, 1.0 - warmth], np.float32),
        blur_px=blur_px,
        noise=noise,
        rain=weather == "rain",
        quality=quality,
    )


def wall_light(day: Day) -> RGB:
    """Light on walls that face south, east, north and west, float32 (4, 3)."""
    normals = np.array([180.0, 90.0, 0.0, 270.0])
    facing = np.maximum(0.0, np.cos(np.deg2rad(normals - day.sun_deg))).astype(np.float32)
    # Even without sun the four sides differ a little: the sky is not the same all around.
    side = np.array([1.0, 0.96, 0.9, 0.94], np.float32)
    return side[:, None] * day.ambient + facing[:, None] * day.sun
