from __future__ import annotations

import numpy as np
import pytest

from stages.toycity.buildings import PATTERNS, building_style, pattern_mask
from stages.toycity.facades import draw_facade
from stages.toycity.windows_and_doors import PX_PER_M


def test_facades_are_as_large_as_their_lots():
    pictures = set()
    for building in range(60):
        style = building_style(2, 1, building)
        picture = draw_facade(style, 11.0, building % 2)
        assert picture.size == (11 * PX_PER_M, round(style.height_m * PX_PER_M))
        assert np.asarray(picture)[-1, :, 3].min() == 255
        pictures.add(picture.tobytes())
    assert len(pictures) == 60


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_covers_some_of_the_wall(name):
    mask = pattern_mask(name, 160, 200, 24, 150)
    assert mask.shape == (200, 160)
    assert mask.mean() == 0 if name == "plain" else 0.03 < mask.mean() < 0.9
