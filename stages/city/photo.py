"""From light to file: lens, exposure, white balance, weather in the air, noise, JPEG."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from stages.city.light import Day


def develop(frame: Image.Image, day: Day, image_px: int, tilt_deg: float, rng: np.random.Generator) -> bytes:
    """JPEG bytes of a rendered frame (RGB, twice the size wanted) as the day's camera takes it."""
    if tilt_deg:
        side = frame.width
        margin = round(side * 0.05)
        frame = frame.rotate(tilt_deg, Image.Resampling.BILINEAR)
        frame = frame.crop((margin, margin, side - margin, side - margin))
    frame = frame.resize(
        (image_px, image_px), Image.Resampling.BOX if not tilt_deg else Image.Resampling.BILINEAR
    )
    if day.blur_px:
        frame = frame.filter(ImageFilter.GaussianBlur(day.blur_px * image_px / 256))
    pixels = np.asarray(frame).astype(np.float32)
    if day.rain:
        pixels = _rain(pixels, rng)
    buffer = io.BytesIO()
    Image.fromarray(_expose(pixels, day, rng)).save(buffer, "JPEG", quality=day.quality)
    return buffer.getvalue()


def _expose(pixels: npt.NDArray[np.float32], day: Day, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    side = pixels.shape[0]
    ramp = np.linspace(-1, 1, side, dtype=np.float32) ** 2
    vignette = 1.0 - 0.09 * (ramp[:, None] + ramp[None, :])
    pixels = pixels * (vignette[..., None] * (day.exposure * day.tint))
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = grey + (pixels - grey) * np.float32(day.saturation)
    pixels = 255.0 * (np.clip(pixels, 0.0, 255.0) / 255.0) ** np.float32(day.gamma)
    pixels += rng.standard_normal(pixels.shape, np.float32) * np.float32(day.noise)
    return np.clip(pixels, 0.0, 255.0).astype(np.uint8)


def _rain(pixels: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Streaks of falling water."""
    side = pixels.shape[0]
    drops = (rng.random((side, side)) < 0.006).astype(np.uint8) * 255
    streaks = (
        Image.fromarray(drops).resize((side, side * 6), Image.Resampling.BILINEAR).crop((0, 0, side, side))
    )
    return pixels + 0.22 * np.asarray(streaks, dtype=np.float32)[..., None]
