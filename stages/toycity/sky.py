"""Sky: a gradient, clouds on a plane high above, hills at the end of the street."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from stages.toycity.camera import Camera
from stages.toycity.light import Day

_TILE_PX = 256


class Sky:
    """The sky over one city; clouds differ by day, hills stay."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng((seed, 60))
        self._clouds = _clouds(rng)
        bearing = np.deg2rad(np.arange(360))
        hills = np.full(360, 0.02)
        for wave in range(1, 9):
            hills += 0.022 / wave * np.sin(wave * bearing + rng.uniform(0, 2 * np.pi))
        self._hills = np.maximum(0.006, hills)

    def render(self, camera: Camera, day: Day, shift: int) -> npt.NDArray[np.uint8]:
        """The whole frame as sky and hills, uint8 (side, side, 4)."""
        small = camera.side_px // 4
        scale = camera.side_px / small
        rows = (np.arange(small) + 0.5) * scale
        up = ((camera.horizon_px - rows) / camera.focal_px).astype(np.float32)
        columns = (np.arange(small) + 0.5) * scale - camera.side_px / 2
        dx, dy = camera.rays()
        picked = np.minimum(camera.side_px - 1, (np.arange(small) * scale).astype(int))
        height = np.clip(up / 0.9, 0.0, 1.0)[:, None, None] ** 0.7
        frame = day.horizon + (day.zenith - day.horizon) * height
        safe = np.maximum(up, 0.05)[:, None]
        u = ((dx[picked] / safe) * 26.0 + shift).astype(np.int32) & (_TILE_PX - 1)
        v = ((dy[picked] / safe) * 26.0 + shift // 7).astype(np.int32) & (_TILE_PX - 1)
        cover = np.clip((self._clouds[v, u] + 1.6 * day.clouds - 1.0) * 1.4, 0.0, 1.0)
        cover = cover * np.clip(up * 5.0, 0.0, 1.0)[:, None] * (0.75 - 0.45 * (day.clouds > 0.85))
        white = np.minimum(255.0, day.horizon * 1.06 + 8.0)
        frame = frame + (white - frame) * cover[..., None]
        bearing = camera.heading_deg + np.rad2deg(np.arctan2(columns, camera.focal_px))
        hill = np.interp(bearing % 360, np.arange(360), self._hills)
        ridge = up[:, None] < hill
        green = np.array([96, 112, 106], np.float32) * (day.ambient + 0.6 * day.sun)
        frame[ridge] = 0.5 * green + 0.5 * day.horizon
        small_frame = Image.fromarray(np.clip(frame, 0, 255).astype(np.uint8))
        large = small_frame.resize((camera.side_px,) * 2, Image.Resampling.BILINEAR)
        return np.array(large.convert("RGBA"))


def _clouds(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A seamless tile of 1/f noise, about 0 to 1."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(_TILE_PX), np.fft.fftfreq(_TILE_PX)))
    frequency[0, 0] = 1.0
    spectrum = np.fft.fft2(rng.normal(size=(_TILE_PX, _TILE_PX))) / frequency**1.7
    tile = np.fft.ifft2(spectrum).real
    low, high = np.percentile(tile, [2, 98])
    return np.asarray(np.clip((tile - low) / (high - low), 0, 1), np.float32)
