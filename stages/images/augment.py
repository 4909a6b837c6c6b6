"""Strong augmentation: random views of an image, a pure function of key, view and seed (report 4.5)."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from stages.errors import ConfigError


@dataclass(frozen=True)
class AugmentConfig:
    """Settings of the views of an image; the section `augment` of params.yaml.

    Attributes
    ----------
    side : int
        Side of the square view in pixels, before the backbone's own preprocessing.
    crop_scale : tuple of float
        Smallest and largest share of the image's area that is kept.
    crop_ratio : tuple of float
        Smallest and largest width over height of the kept part.
    flip_p : float
        Probability of mirroring. A mirrored street looks like another street: 0 by default.
    perspective_p, perspective_shift : float
        Probability of a perspective change, and the largest shift of a corner as a share of half the side.
    jitter_p, brightness, contrast, saturation, hue : float
        Probability of colour jitter; factors are drawn from 1 - x to 1 + x, the hue shift from -hue
        to hue in full turns.
    grey_p : float
        Probability of greyscale.
    blur_p : float
        Probability of Gaussian blur.
    blur_sigma : tuple of float
        Smallest and largest standard deviation of the blur in pixels of the view.
    erase_p : float
        Probability of erasing a rectangle.
    erase_area : tuple of float
        Smallest and largest share of the view's area that is erased.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    side: int
    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float]
    flip_p: float
    perspective_p: float
    perspective_shift: float
    jitter_p: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    grey_p: float
    blur_p: float
    blur_sigma: tuple[float, float]
    erase_p: float
    erase_area: tuple[float, float]

    def __post_init__(self) -> None:
        most = {"hue": 0.5, "perspective_shift": 0.9, "crop_ratio": math.inf, "blur_sigma": math.inf}
        if self.side < 1:
            raise ConfigError(f"augment.side is {self.side}: expected 1 or more pixels")
        for name in (field.name for field in fields(self) if field.name != "side"):
            value = getattr(self, name)
            pair = value if isinstance(value, tuple) else (value, value)
            least = 1e-3 if name in ("crop_scale", "crop_ratio") else 0.0
            if not least <= pair[0] <= pair[1] <= most.get(name, 1.0):
                bounds = f"{least:g} and {most.get(name, 1.0):g}"
                raise ConfigError(f"augment.{name} is {value}: expected within {bounds}, ascending")


def augment(image: Image.Image, *, key: str, view: int, seed: int, config: AugmentConfig) -> Image.Image:
    """Return one view of an image: a square RGB image.

    The same image, key, view number, seed and settings always give the same pixels, on any worker and
    in any order.

    Parameters
    ----------
    image : PIL image, RGB
        The full photo.
    key : str
        The image's key in the manifest.
    view : int
        Number of the view.
    seed : int
        Seed of the run.
    config : AugmentConfig
        Strength of each step.
    """
    random = _generator(key, view, seed)
    picture = _crop(image, random, config)
    # Each step draws all its numbers even if it is not applied, so that changing one setting does
    # not change the other steps.
    if random.random() < config.flip_p:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = _perspective(picture, random, config)
    picture = _jitter(picture, random, config)
    if random.random() < config.grey_p:
        picture = picture.convert("L").convert("RGB")
    happens, sigma = random.random() < config.blur_p, random.uniform(*config.blur_sigma)
    if happens:
        picture = picture.filter(ImageFilter.GaussianBlur(sigma))
    return _erase(picture, random, config)


def _generator(key: str, view: int, seed: int) -> np.random.Generator:
    name = f"{seed}\0{view}\0{key}".encode()
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "little"))


def _crop(image: Image.Image, random: np.random.Generator, config: AugmentConfig) -> Image.Image:
    """Cut out a random part and resize it to a square."""
    width, height = image.size
    area = width * height * random.uniform(*config.crop_scale)
    narrow, broad = config.crop_ratio
    ratio = math.exp(random.uniform(math.log(narrow), math.log(broad)))
    wide = min(width, max(1, round(math.sqrt(area * ratio))))
    high = min(height, max(1, round(math.sqrt(area / ratio))))
    left, top = int(random.integers(width - wide + 1)), int(random.integers(height - high + 1))
    box = (left, top, left + wide, top + high)
    return image.resize((config.side, config.side), Image.Resampling.BICUBIC, box=box)


def _perspective(picture: Image.Image, random: np.random.Generator, config: AugmentConfig) -> Image.Image:
    """Move the four corners inwards and stretch the enclosed part to the square, without empty borders."""
    happens = random.random() < config.perspective_p
    shifts = random.random((4, 2)) * config.perspective_shift * config.side / 2
    if not happens:
        return picture
    far = float(config.side)
    corners = np.array([[0.0, 0.0], [far, 0.0], [far, far], [0.0, far]])
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    sources = corners + inwards * shifts
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, sources, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    coefficients = np.linalg.solve(np.array(rows), np.array(values))
    return picture.transform(
        picture.size, Image.Transform.PERSPECTIVE, tuple(coefficients.tolist()), Image.Resampling.BILINEAR
    )


def _jitter(picture: Image.Image, random: np.random.Generator, config: AugmentConfig) -> Image.Image:
    """Change brightness, contrast, saturation and hue."""
    happens = random.random() < config.jitter_p
    strengths = (config.brightness, config.contrast, config.saturation)
    factors = [1 + strength * random.uniform(-1, 1) for strength in strengths]
    turn = round(256 * config.hue * random.uniform(-1, 1))
    if not happens:
        return picture
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for enhancer, factor in zip(enhancers, factors, strict=True):
        picture = enhancer(picture).enhance(factor)
    hue, saturation, value = picture.convert("HSV").split()
    hue = hue.point([(level + turn) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _erase(picture: Image.Image, random: np.random.Generator, config: AugmentConfig) -> Image.Image:
    """Cover a rectangle with one colour."""
    happens = random.random() < config.erase_p
    area = config.side**2 * random.uniform(*config.erase_area)
    ratio = math.exp(random.uniform(-1, 1))
    wide = min(config.side, round(math.sqrt(area * ratio)))
    high = min(config.side, round(math.sqrt(area / ratio)))
    left, top = int(random.integers(config.side - wide + 1)), int(random.integers(config.side - high + 1))
    red, green, blue = (int(level) for level in random.integers(256, size=3))
    if happens and wide and high:
        picture.paste((red, green, blue), (left, top, left + wide, top + high))
    return picture
