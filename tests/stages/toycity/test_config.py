from __future__ import annotations

from dataclasses import replace

import pytest

from stages.errors import ConfigError
from stages.toycity.config import CityConfig


@pytest.mark.parametrize(
    ("key", "value"),
    [("images", 39), ("queries", 0), ("seed", -1), ("image_px", 32), ("outside_share", 0.7)],
)
def test_an_invalid_setting_is_named(key, value):
    valid = CityConfig(images=40, queries=6, seed=3, image_px=96, outside_share=0.2)
    with pytest.raises(ConfigError, match=f"toycity.{key} is {value}"):
        replace(valid, **{key: value})
