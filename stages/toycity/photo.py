"""From light to file: lens, exposure, white balance, weather in the air, noise, JPEG."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from stages.toycity.light import Day

_CURVE_STEPS = 1024


class Darkroom:
    """Turns rendered frames into photos of `image_px` pixels a side."""

    def __init__(self, image_px: int) -> None:
        self._image_px = image_px
        ramp = np.linspace(-1, 1, image_px, dtype=np.float32) ** 2
        self._vignette = 1.0 - 0.07 * (ramp[:, None] + ramp[None, :])[..., None]
        # One block of noise read from a new place each time: fresh normals cost as much as the whole render.
        self._grain = np.random.default_rng(0).standard_normal(2 * image_px * image_px * 3, np.float32)

    def develop(self, frame: Image.Image, day: Day, tilt_deg: float, rng: np.random.Generator) -> bytes:
        """JPEG bytes of a rendered RGB frame as the day's camera takes it."""
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

    def _expose(
        self, pixels: npt.NDArray[np.float32], day: Day, rng: np.random.Generator
    ) -> npt.NDArray[np.uint8]:
        pixels *= self._vignette * (np.float32(day.exposure) * day.tint)
        grey = (pixels[..., :1] + pixels[..., 1:2] + pixels[..., 2:]) / np.float32(3)
        pixels = np.float32(day.saturation) * (pixels - grey) + grey
        level = np.arange(_CURVE_STEPS, dtype=np.float32) / (_CURVE_STEPS - 1)
        curve = (255.0 * level ** np.float32(day.gamma)).astype(np.float32)
        scaled = np.clip(pixels * np.float32((_CURVE_STEPS - 1) / 255.0), 0, _CURVE_STEPS - 1)
        pixels = curve.take(scaled.astype(np.int32))
        first = int(rng.integers(pixels.size))
        pixels += self._grain[first : first + pixels.size].reshape(pixels.shape) * np.float32(day.noise)
        return np.clip(pixels, 0.0, 255.0).astype(np.uint8)


def _rain(pixels: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Streaks of falling water."""
    side = pixels.shape[0]
    drops = (rng.random((side // 6 + 1, side)) < 0.03).astype(np.uint8) * 255
    streaks = Image.fromarray(drops).resize((side, side), Image.Resampling.BILINEAR)
    return pixels + np.float32(0.11) * np.asarray(streaks, dtype=np.float32)[..., None]
