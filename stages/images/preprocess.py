"""A backbone's standard preprocessing: resize and centre crop; normalisation happens on the device."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_MAX_ASPECT = 32
"""Longest over shortest side; longer images are cropped before they are resized."""


@dataclass(frozen=True)
class Preprocess:
    """A backbone's standard preprocessing, without the normalisation, which happens on the device.

    The shorter side is resized to `resize` pixels (bicubic, antialiased), then the centre square of
    `image_size` pixels is cut out. Smaller images are enlarged by the same rule. Large JPEGs are
    decoded at a reduced size first, never below `decode_at_least` pixels.
    """

    image_size: int
    resize: int
    interpolation: str
    decode_at_least: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Return the pixels of an RGB image: (S, S, 3) uint8."""
        image = _without_ends(image)
        width, height = image.size
        short = min(width, height)
        scaled = (self.resize * width // short, self.resize * height // short)
        if scaled != image.size:
            image = image.resize(scaled, Image.Resampling.BICUBIC)
        left = round((scaled[0] - self.image_size) / 2)
        top = round((scaled[1] - self.image_size) / 2)
        image = image.crop((left, top, left + self.image_size, top + self.image_size))
        return np.array(image, dtype=np.uint8)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for the recipe."""
        return asdict(self)


def _without_ends(image: Image.Image) -> Image.Image:
    """Cut the ends off a very long image, which would fill the memory once resized."""
    width, height = image.size
    reach = _MAX_ASPECT * min(width, height)
    if max(width, height) <= reach:
        return image
    left, top = max(0, (width - reach) // 2), max(0, (height - reach) // 2)
    return image.crop((left, top, left + min(width, reach), top + min(height, reach)))
