"""Views are pure functions of key, view number and seed, and look like the street they show."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.project.params import load_params
from stages.errors import ConfigError
from stages.images.augment import augment

CONFIG = replace(load_params(Path(__file__).parents[3] / "params.yaml").augment, side=64)
OFF = {name: 0.0 for name in asdict(CONFIG) if name.endswith("_p")}
PLAIN = replace(CONFIG, **OFF, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))


def photo(width=64, height=64):
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def view(number=0, key="a.jpg", seed=0, config=CONFIG, image=None):
    picture = augment(image or photo(), key=key, view=number, seed=seed, config=config)
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def test_a_view_is_a_pure_function():
    before = [view(n) for n in range(4)]
    np.random.default_rng(0).random(10)
    for number in (3, 1, 0, 2):
        np.testing.assert_array_equal(view(number), before[number])


def test_views_differ_by_number_key_and_seed():
    seen = {view(n, key, seed).tobytes() for n in range(3) for key in ("a.jpg", "b.jpg") for seed in (0, 1)}
    assert len(seen) == 12
    assert view(1, "1").tobytes() != view(11, "").tobytes()


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (640, 480), (31, 17)])
def test_every_shape_of_image_gives_a_square(size):
    for number in range(5):
        assert view(number, image=photo(*size)).shape == (64, 64, 3)


def test_with_all_steps_off_a_view_is_the_image():
    np.testing.assert_array_equal(view(config=PLAIN), np.asarray(photo()))


def test_no_view_is_mirrored_unless_asked():
    # Left is dark and right is bright in red; a mirrored view would turn that round.
    for number in range(40):
        red = view(number, config=replace(PLAIN, crop_scale=CONFIG.crop_scale))[..., 0]
        assert red[:, :20].mean() < red[:, -20:].mean()
    flipped = view(config=replace(PLAIN, flip_p=1.0))
    np.testing.assert_array_equal(flipped, np.asarray(photo())[:, ::-1])


@pytest.mark.parametrize("step", ["perspective_p", "jitter_p", "grey_p", "blur_p", "erase_p"])
def test_each_step_changes_the_view(step):
    barred = np.asarray(photo()).copy()
    barred[::8] = 255  # edges, which a blur takes away: on a smooth slope it shows nothing
    changed = view(config=replace(PLAIN, **{step: 1.0}), image=Image.fromarray(barred))
    assert np.abs(changed - barred).max() > 2
    if step == "grey_p":
        assert (changed == changed[..., :1]).all()
    if step == "erase_p":
        share = (np.abs(changed - barred).max(axis=-1) > 0).mean()
        assert 0.005 < share < 0.3


def test_perspective_leaves_no_empty_border():
    white = Image.new("RGB", (64, 64), "white")
    for number in range(10):
        assert view(number, config=replace(PLAIN, perspective_p=1.0), image=white).min() > 250


def test_crops_keep_the_share_of_area_asked_for():
    coded = np.zeros((100, 100, 3), np.uint8)
    coded[:50, :50] = 255
    quarter = replace(PLAIN, crop_scale=(0.25, 0.25))
    shares = [view(n, config=quarter, image=Image.fromarray(coded)).mean() / 255 for n in range(100)]
    assert min(shares) < 0.05
    assert max(shares) > 0.8


def test_out_of_range_settings_are_named():
    for name, value in {
        "side": 0,
        "crop_scale": (0.0, 1.0),
        "erase_area": (0.3, 0.1),
        "grey_p": 1.5,
        "hue": 0.7,
        "blur_p": -0.1,
    }.items():
        with pytest.raises(ConfigError, match=f"augment.{name} is"):
            replace(CONFIG, **{name: value})
