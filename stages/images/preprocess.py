"""A backbone's standard preprocessing: resize and centre crop; normalisation happens on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_MAX_ASPECT = 32
"""Longest over shortest side; longer images are cropped before they are resized."""
CENTRE = 0.5
MORE_CROPS: Mapping[int, tuple[float, ...]] = {1: (), 3: (0.0, 1.0), 5: (0.0, 0.25, 0.75, 1.0)}
"""Number of crops of a query (`eval.crops`): where they lie besides the centre, see `Preprocess.crop_at`."""
USUAL_CROPS = 3
"""Crops of a photo where no project says otherwise; the default of `eval.crops`."""


def more_crops(crops: int, preprocessing: Mapping[str, Any]) -> tuple[float, ...]:
    """Return where the crops besides the centre lie; none if the preprocessing of a recipe crops nothing.

    It shows the whole image, or the features were imported and no image is known.
    """
    crops_centre = "resize" in preprocessing and preprocessing.get("crop_mode", "center") == "center"
    return MORE_CROPS[crops] if crops_centre else ()


@dataclass(frozen=True)
class Preprocess:
    """A backbone's standard preprocessing, without the normalisation, which happens on the device.

    The shorter side is resized to `resize` pixels (antialiased), then the centre square of `image_size`
    pixels is cut out. Smaller images are enlarged by the same rule. Large JPEGs are decoded at a reduced
    size first, never below `decode_at_least` pixels. With another `crop_mode` the whole image is resized
    to a square ("squash"), or its longer side to `resize`, with borders of the mean colour ("border").
    `crop_at` moves the square along the longer side: 0 is the left or upper end, 1 the other end.
    """

    image_size: int
    resize: int
    interpolation: str
    decode_at_least: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_mode: str = "center"
    crop_at: float = CENTRE

    def __call__(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Return the pixels of an RGB image: (S, S, 3) uint8."""
        image = _without_ends(image)
        scaled = self._scaled(*image.size)
        if scaled != image.size:
            image = image.resize(scaled, getattr(Image.Resampling, self.interpolation.upper()))
        if self.crop_mode == "border":
            image = self._with_borders(image)
        left, top = self.corner(*image.size)
        image = image.crop((left, top, left + self.image_size, top + self.image_size))
        return np.array(image, dtype=np.uint8)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for the recipe."""
        values = asdict(self)
        if self.crop_mode == "center":  # recipes older than the other modes must keep their ids
            del values["crop_mode"]
        if self.crop_at == CENTRE:  # likewise older than crops of queries
            del values["crop_at"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Return the preprocessing that a recipe states; its other entries are left out."""
        names = [field.name for field in fields(cls)]
        known: dict[str, Any] = {name: values[name] for name in names if name in values}
        known |= {"mean": tuple(values["mean"]), "std": tuple(values["std"])}  # JSON has lists
        return cls(**known)

    def decoding_scaled(self) -> Preprocess:
        """Return the same with large JPEGs decoded as small as the resize allows (`extract.decode`)."""
        return replace(self, decode_at_least=self.resize)

    def corner(self, width: int, height: int) -> tuple[int, int]:
        """Return left and upper edge of the crop in a resized image; a square image has only its centre."""
        shares = [CENTRE, CENTRE]
        if width != height:
            shares[height > width] = self.crop_at
        left, top = (
            round(share * (side - self.image_size))
            for share, side in zip(shares, (width, height), strict=True)
        )
        return left, top

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """Return the size to which an image is resized."""
        if self.crop_mode == "squash":
            return self.resize, self.resize
        if self.crop_mode == "border":
            long = max(width, height)
            return max(1, round(self.resize * width / long)), max(1, round(self.resize * height / long))
        short = min(width, height)
        return self.resize * width // short, self.resize * height // short

    def _with_borders(self, image: Image.Image) -> Image.Image:
        """Return the image in the middle of a square of the mean colour."""
        side = max(self.image_size, *image.size)
        square = Image.new("RGB", (side, side), tuple(round(255 * value) for value in self.mean))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square


def _without_ends(image: Image.Image) -> Image.Image:
    """Cut the ends off a very long image, which would fill the memory once resized."""
    width, height = image.size
    reach = _MAX_ASPECT * min(width, height)
    if max(width, height) <= reach:
        return image
    left, top = max(0, (width - reach) // 2), max(0, (height - reach) // 2)
    return image.crop((left, top, left + min(width, reach), top + min(height, reach)))
