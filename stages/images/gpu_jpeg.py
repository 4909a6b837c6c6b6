"""Decoding and preprocessing of JPEG batches on the backbone's device: torchvision's nvJPEG on a GPU.

The steps are those of Pillow for single images. Pixels differ because the decoders round differently and
enlarge the colour planes differently, so the decoder is part of the recipe.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import ExifTags, JpegImagePlugin
from torch import Tensor
from torch.nn import functional
from torchvision.io import ImageReadMode, decode_jpeg

from stages.images.formats import open_picture
from stages.images.preprocess import Preprocess
from stages.images.read import UnreadableImage, as_unreadable

_END = b"\xff\xd9"


def plain_jpeg(content: bytes, preprocess: Preprocess) -> bool:
    """Return whether `decode_batch` decodes a file to the same image as `read_image`, but faster.

    It must be a complete and upright JPEG in grey or YCbCr, of usual proportions, and not so large
    that decoding at a reduced size is faster. Only its header is read. Other preprocessing than
    bicubic and a centre crop is left to `read_image`.
    """
    resizes_alike = (preprocess.interpolation, preprocess.crop_mode) == ("bicubic", "center")
    if not resizes_alike or not content.rstrip(b"\0").endswith(_END):
        return False
    try:
        with as_unreadable(Path()), open_picture(content) as image:
            return (
                isinstance(image, JpegImagePlugin.JpegImageFile)
                and (image.mode == "L" or (image.mode == "RGB" and _in_ycbcr(image)))
                and image.getexif().get(ExifTags.Base.Orientation, 1) == 1
                and max(image.size) < 2 * preprocess.decode_at_least
                and max(image.size) <= 8 * min(image.size)
            )
    except UnreadableImage:  # `decode_image` finds the same fault and names it
        return False


def decode_batch(encoded: Mapping[int, Tensor], preprocess: Preprocess, pixels: Tensor) -> tuple[int, ...]:
    """Fill rows of `pixels` from JPEGs; return the rows that could not be decoded.

    Parameters
    ----------
    encoded : mapping of int to Tensor
        Content of a JPEG file, uint8 in main memory, by row of `pixels`.
    preprocess : Preprocess
        The backbone's.
    pixels : Tensor, (B, S, S, 3) uint8
        On the decoding device: nvJPEG on a GPU, libjpeg on a CPU.
    """
    rows = list(encoded)
    try:
        results = _decoded(list(encoded.values()), pixels.device)
        decoded = dict(zip(rows, results, strict=True))
    except torch.cuda.OutOfMemoryError:  # the files are sound, and Pillow's pixels would differ
        raise
    except RuntimeError:  # one bad file makes the whole batch fail
        decoded = {row: image for row in rows for image in _decoded_alone(encoded[row], pixels.device)}
    sizes: dict[tuple[int, ...], list[int]] = {}
    for row, image in decoded.items():
        sizes.setdefault(tuple(image.shape), []).append(row)
    for of_size in sizes.values():
        images = torch.stack([decoded[row] for row in of_size])
        pixels[torch.tensor(of_size, device=pixels.device)] = resized(images, preprocess)
    return tuple(row for row in rows if row not in decoded)


def resized(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Return pixels (n, S, S, 3) uint8 of images (n, 3, H, W) uint8, as `preprocess` makes them."""
    height, width = images.shape[-2:]
    short, size = min(height, width), preprocess.image_size
    scaled = (preprocess.resize * height // short, preprocess.resize * width // short)
    if scaled != (height, width):
        # Pillow and PyTorch have the same antialiased bicubic filter: Keys' cubic with a = -1/2.
        scaled_images = functional.interpolate(
            images.float(), scaled, mode="bicubic", antialias=True, align_corners=False
        )
        images = scaled_images.round_().clamp_(0, 255).to(torch.uint8)
    left, top = preprocess.corner(scaled[1], scaled[0])
    return images[:, :, top : top + size, left : left + size].permute(0, 2, 3, 1)


def _in_ycbcr(image: JpegImagePlugin.JpegImageFile) -> bool:
    """Return whether three planes are YCbCr, by libjpeg's rule; nvJPEG would misread RGB as YCbCr."""
    if "jfif" in image.info:
        return True
    if "adobe" in image.info:
        return bool(image.info["adobe_transform"])
    return bytes(plane[0] for plane in image.layer) != b"RGB"


def _decoded(files: list[Tensor], device: torch.device) -> list[Tensor]:
    with warnings.catch_warnings():
        # torchvision 0.29 recommends torchcodec, which would be another dependency.
        warnings.simplefilter("ignore", DeprecationWarning)
        return decode_jpeg(files, mode=ImageReadMode.RGB, device=device)  # type: ignore[no-any-return]


def _decoded_alone(content: Tensor, device: torch.device) -> list[Tensor]:
    try:
        return _decoded([content], device)
    except RuntimeError:
        return []
