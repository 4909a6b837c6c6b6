"""Familiarity by hand, and with the weights of a backbone."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from stages.extract.elsewhere import _noise, _plain, _shuffled
from stages.models.backbones.backbone import load_backbone, weights_reachable
from stages.models.localiser.exemplars import Exemplars
from stages.models.localiser.familiarity import (
    LEAST_PROBES,
    cosine_elsewhere,
    familiarity,
    threshold_of,
    with_elsewhere,
)
from stages.toycity.config import CityConfig
from stages.toycity.draw import Renderer
from stages.toycity.streets import plan_city, plan_shots


def test_familiarity_compares_two_angles():
    nearest, elsewhere = np.cos([0.2, 0.4]), np.cos([0.8, 0.5])
    np.testing.assert_allclose(familiarity(nearest, None), -np.log([0.04, 0.16]))
    np.testing.assert_allclose(familiarity(nearest, elsewhere), np.log([0.8 / 0.04, 0.5 / 0.16]))
    assert np.isfinite(familiarity(np.ones(1), np.ones(1))).all()


def test_a_share_of_the_citys_own_photos_lies_below_the_threshold():
    values = np.random.default_rng(0).normal(size=1000)
    assert (values < threshold_of(values, 0.05)).sum() == 50
    assert threshold_of(values[: LEAST_PROBES - 1], 0.05) is None


def test_pictures_that_resemble_the_city_are_left_out():
    random = np.random.default_rng(0)
    city = random.normal(size=(60, 8)) + 5 * np.eye(8)[0]
    like, unlike = (
        random.normal(size=(20, 8)) + 5 * np.eye(8)[0],
        random.normal(size=(20, 8)) + 5 * np.eye(8)[1],
    )
    exemplars = Exemplars.of(torch.from_numpy(city).float(), np.repeat(np.arange(20), 3), 20)
    kinds = np.repeat(["toy city", "noise"], 20)
    found = with_elsewhere(exemplars, torch.from_numpy(np.concatenate([like, unlike])).float(), kinds)
    unit = unlike / np.linalg.norm(unlike, axis=1, keepdims=True)
    np.testing.assert_allclose(found.elsewhere.numpy(), unit, atol=1e-3)
    np.testing.assert_allclose(cosine_elsewhere(found, unlike), 1, atol=1e-3)
    assert cosine_elsewhere(exemplars, unlike) is None


@pytest.mark.skipif(
    not weights_reachable("efficientnet_lite0", "pretrained"),
    reason="needs weights",
)
def test_noise_flat_colours_and_shuffled_photos_are_unfamiliar():
    """Thirty photos of a toy city are known; further ones of the same street are not rejected."""
    city = plan_city(80, 0)
    shots, renderer = plan_shots(city, CityConfig(80, 1, 0, 256, 0.0))[:45], Renderer(city, 256)
    photos = [Image.open(io.BytesIO(renderer.photo(shot))).convert("RGB") for shot in shots]
    random = np.random.default_rng(5)
    drawn = [_noise(random, grain, number) for number, grain in enumerate((1, 2, 4, 8, 16, 32))]
    drawn += [_plain(random, flat=number < 3) for number in range(6)]
    drawn += [_shuffled(random, photos[number], 8) for number in range(6)]
    backbone = load_backbone(
        "efficientnet_lite0", weights="pretrained", image_size=224, outputs=("avg",), device="cpu"
    )

    def features(pictures):
        return backbone(torch.from_numpy(np.stack([backbone.preprocess(picture) for picture in pictures])))[
            "avg"
        ]

    known, others = np.arange(45) % 3 > 0, np.arange(45) % 3 == 0
    seen = features(photos)
    exemplars = Exemplars.of(seen[torch.from_numpy(known)], np.arange(30), 30)

    def values(queries, own=None):
        classes = np.tile(np.arange(30), (len(queries), 1))
        asked = classes if own is None else np.where(classes == own, -1, classes)
        _, plain = exemplars.compare(queries, asked)
        return familiarity(plain.max(axis=1), None)

    least = threshold_of(values(seen[torch.from_numpy(known)], np.arange(30)[:, None]), 0.05)
    assert (values(features([Image.fromarray(picture) for picture in drawn])) < least).all()
    assert (values(seen[torch.from_numpy(others)]) < least).mean() <= 0.1
